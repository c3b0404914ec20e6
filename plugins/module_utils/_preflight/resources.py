# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs and the memory that a host has for one instance, and who else has a part in them, looked at once.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._gguf.file import GgufError
from .._host.gpu import nvml
from .._host.gpu import read as gpu
from .._host.runtime import Run
from .._spec.spec import Spec
from . import gpus, memory
from .gpus import GpuCheck, Neighbour
from .memory import MemoryCheck


@dataclass(frozen=True)
class Room:
    """What was found: the GPUs of the spec, the instance's own processes, its neighbours, the driver's CUDA."""

    seen: GpuCheck = field(default_factory=GpuCheck)
    ours: frozenset[int] = frozenset()
    others: tuple[Neighbour, ...] = ()
    driver: int | None = None


def of_record(spec: Spec, last: Mapping[str, Any] | None) -> Room | None:
    """What is known without a look: the GPUs that the same words meant when the instance was last deployed, or None.

    Words that were passed on as they are (an earlier version did so) stay until something else restarts the server.
    """
    return Room(GpuCheck(gpus.known(spec, last))) if last and gpus.same_words(spec, last) else None


def look(
    spec: Spec,
    home: str,
    last: Mapping[str, Any] | None,
    library: Callable[[str], bool],
    before: Sequence[Neighbour] = (),
) -> Room:
    """Look at the host. NVML is asked only for a spec that asks for GPUs. ``before`` as gpus.neighbours takes it."""
    reading: gpus.Reading = ()
    driver = None
    if spec.gpus:
        if nvml.library_present():  # on a host without a driver no library of Python's would help
            library("nvidia-ml-py")
        try:
            found = gpu.read()
            reading, driver = found.gpus, _number(found.cuda_version)
        except gpu.NvmlUnavailable as error:
            reading = error
    ours, others = gpus.pids_of(last), gpus.neighbours(home, spec.name, reading, before)
    seen = gpus.check(spec, reading, ours=ours, others=others, last=last, mps=bool(spec.gpus) and gpus.mps_runs())
    return Room(seen, ours, tuple(others), driver)


def memory_for(
    spec: Spec, start: Mapping[str, Any], run: Run, room: Room, last: Mapping[str, Any] | None
) -> MemoryCheck:
    """Whether the launch fits into the room; may run one container. What cannot be read is told as a problem."""
    try:
        return memory.check(
            spec,
            start,
            run,
            gpus=room.seen.gpus,
            ours=room.ours,
            others=room.others,
            last=last,
            host=memory.host_memory(room.ours),
        )
    except (OSError, ValueError, GgufError) as error:
        return MemoryCheck(problems=(f"memory: what {spec.name} takes cannot be told: {error}.",))


def _number(version: str | None) -> int | None:
    """NVML's own number for a CUDA version: 12.8 is 12080."""
    major, dot, minor = (version or "").partition(".")
    return int(major) * 1000 + int(minor) * 10 if dot and major.isdigit() and minor.isdigit() else None
