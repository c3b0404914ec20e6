# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a failure: what the host shows, for the diagnosis, and the evidence that is kept.

Private to gpufleet.llamacpp; may change at any time. The evidence is kept before the rollback, which overwrites most of
it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import Any

from .._gate import evidence
from .._gate.diagnosis import HostState
from .._host import layout, ports, runner
from .._host import manager as managers
from .._host.files import write_atomic
from .._host.gpu import read as gpu
from .._preflight import gpus
from .._spec.launch import Launch
from .._spec.record import Record
from .._spec.render import Place, unit
from . import observe

MEMORY = "/proc/meminfo"
# Lines of the kernel's log that are looked at.
KERNEL_LINES = 1000
# Failures that are kept, and lines of the server's log in each.
KEPT = 5
LOG_LINES = 2000


def keep(place: Place, record: Record, why: str) -> str:
    """Keep the evidence of this failure; returns where it is, in a sentence. Raises nothing."""
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{record.launch.id}"
    shelf = os.path.join(place.folder, layout.FAILURES)
    folder = os.path.join(shelf, name)
    try:
        os.makedirs(folder, mode=0o750, exist_ok=True)
        for file, content in collect(place, record, why).items():
            write_atomic(os.path.join(folder, file), content, 0o640)
        for old in sorted(os.listdir(shelf))[:-KEPT]:
            shutil.rmtree(os.path.join(shelf, old))
    except OSError as error:
        return f"The evidence could not be kept in {folder}: {error.strerror}."
    return f"The evidence is in {folder}."


def collect(place: Place, record: Record, why: str) -> dict[str, bytes]:
    """Content by file name: the failure in words, the command, the runner's state file, the log, the server's answers,
    and the GPUs.
    """
    launch = record.launch
    lines = place.manager.log_lines(unit(place, record.spec), LOG_LINES)
    key, state = runner.read_key(launch.api_key_file), observe.runner_state(place)
    found = evidence.collect(launch.url, key, lines, launch.argv, state, _all_gpus())
    return {"failure.txt": f"{why}\n".encode(), **found}


def _all_gpus() -> Any:
    try:
        return gpu.as_dict(gpu.read())
    except gpu.NvmlUnavailable as error:
        return str(error)


def look(place: Place, record: Record, since: float) -> HostState:
    """The host as it is now; ``since`` is when the launch was started, in seconds since 1970. Raises nothing."""
    names, free = _gpus(record.launch.gpus or ())
    return HostState(
        image=record.spec.image,
        binds=binds(record.launch),
        gpus=names,
        gpu_free=free,
        memory_free=_memory(),
        port_owner=_port_owner(record),
        kernel=_kernel(place, since),
        oom_killed=_oom_killed(place, record),
    )


def binds(launch: Launch) -> tuple[str, ...]:
    """What the container sees of the host, from its command."""
    words = launch.container
    return tuple(value for option, value in zip(words, words[1:]) if option == "--bind")


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


def _port_owner(record: Record) -> str | None:
    """Who listens on the instance's port, if it is not the instance."""
    ours = gpus.pids_of(record.launch)
    others = [str(found) for found in ports.listeners(record.spec.port) if found.pid not in ours]
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


def _oom_killed(place: Place, record: Record) -> bool:
    """Whether the manager says so; systemd's word is the unit's result."""
    try:
        detail = place.manager.observe(unit(place, record.spec)).detail
    except (managers.ManagerError, OSError):
        return False
    return "oom-kill" in detail
