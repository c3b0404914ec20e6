# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host shows after a failure, for the diagnosis: GPUs, memory, the port, the kernel's and the manager's words.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from .._gate.diagnosis import HostState
from .._host import manager as managers
from .._host import ports
from .._host.gpu import read as gpu
from .._preflight import gpus
from . import observe
from .observe import Place

MEMORY = "/proc/meminfo"
# Lines of the kernel's log that are looked at.
KERNEL_LINES = 1000


def look(place: Place, value: Mapping[str, Any], since: float) -> HostState:
    """The host as it is now; ``since`` is when the launch was started, in seconds since 1970. Raises nothing."""
    launch = value["launch"]
    names, free = _gpus(launch.get("gpus") or ())
    return HostState(
        image=value["spec"]["image"],
        binds=binds(launch["argv"]),
        gpus=names,
        gpu_free=free,
        memory_free=_memory(),
        port_owner=_port_owner(value),
        kernel=_kernel(place, since),
        oom_killed=_oom_killed(place, value),
    )


def binds(argv: Sequence[str]) -> tuple[str, ...]:
    """What the container sees of the host, from its command."""
    return tuple(value for option, value in zip(argv, argv[1:]) if option == "--bind")


def _gpus(uuids: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names, in the order in which the instance sees its GPUs, and MiB that are free; empty where NVML says nothing."""
    try:
        cards = {card.uuid: card for card in gpu.read_gpus()} if uuids else {}
    except gpu.NvmlUnavailable:
        return (), ()
    if not all(uuid in cards for uuid in uuids):
        return tuple(uuids), ()
    chosen = [cards[uuid] for uuid in uuids]
    return tuple(f"{card.index} ({card.uuid})" for card in chosen), tuple(card.memory_free >> 20 for card in chosen)


def _memory() -> int | None:
    """MiB of the host's memory that a program can still have."""
    try:
        with open(MEMORY, encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        return int(fields["MemAvailable"].split()[0]) // 1024
    except (OSError, ValueError, KeyError):
        return None


def _port_owner(value: Mapping[str, Any]) -> str | None:
    """Who listens on the instance's port, if it is not the instance."""
    ours = gpus.pids_of(value)
    others = [str(found) for found in ports.listeners(value["spec"]["port"]) if found.pid not in ours]
    return ", ".join(others) or None


def _kernel(place: Place, since: float) -> tuple[str, ...]:
    """The kernel's log since then, where this user may read it."""
    journal = shutil.which("journalctl")
    if journal is None:
        return ()
    begin = f"--since=@{int(since)}"
    code, out, dummy = place.run(
        [journal, "--dmesg", begin, "--no-pager", "--quiet", "--output=cat", f"--lines={KERNEL_LINES}"]
    )
    return tuple(out.splitlines()) if code == 0 else ()


def _oom_killed(place: Place, value: Mapping[str, Any]) -> bool:
    """Whether the manager says so; systemd's word is the unit's result."""
    try:
        detail = place.manager.observe(observe.unit(place, value["spec"])).detail
    except (managers.ManagerError, OSError):
        return False
    return "oom-kill" in detail
