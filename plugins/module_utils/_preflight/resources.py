# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs and the memory that a host has for one instance, read at once with the other instances that use them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .._gguf.file import GgufError
from .._host.gpu import nvml
from .._host.gpu import read as gpu
from .._host.runtime import Run
from .._result import Problem
from .._spec.launch import Launch
from .._spec.record import Record
from .._spec.spec import Spec
from . import gpus, memory
from .gpus import GpuCheck, Neighbour
from .memory import MemoryCheck


@dataclass(frozen=True)
class Resources(GpuCheck):
    """The GPUs, the instance's own processes, the other instances, and the driver's CUDA version, such as 12080."""

    ours: frozenset[int] = frozenset()
    others: tuple[Neighbour, ...] = ()
    driver: int | None = None


def recorded_resources(spec: Spec, last: Record | None) -> Resources | None:
    """The recorded GPUs, without a look at the host; None where the spec has other words for its GPUs.

    Earlier versions did not resolve the words. Then they stay as they are until something else restarts the server.
    """
    return Resources(gpus.recorded(spec, last)) if last and gpus.same_words(spec, last) else None


def read_resources(
    spec: Spec,
    home: str,
    last: Record | None,
    library: Callable[[str], bool],
    before: Sequence[Neighbour] = (),
) -> Resources:
    """Read the host. NVML is used only for a spec with GPUs. ``before``: see gpus.neighbours."""
    reading: gpus.GpuReading = ()
    driver = None
    if spec.gpus:
        if nvml.library_present():  # on a host without a driver Python's library is of no use
            library("nvidia-ml-py")
        try:
            found = gpu.read()
            reading, driver = found.gpus, _cuda_number(found.cuda_version)
        except gpu.NvmlUnavailable as error:
            reading = error
    ours, others = gpus.pids_of(last.launch if last else None), gpus.neighbours(home, spec.name, reading, before)
    mps = bool(spec.gpus) and gpus.mps_runs()
    checked = gpus.check_gpus(spec, reading, ours=ours, others=others, last=last, mps=mps)
    return Resources(**vars(checked), ours=ours, others=tuple(others), driver=driver)


def check_memory(spec: Spec, launch: Launch, run: Run, resources: Resources, last: Record | None) -> MemoryCheck:
    """Whether the launch fits into the memory; may start one container. What cannot be read is a problem."""
    other_pids = frozenset[int]().union(*(other.pids for other in resources.others))
    try:
        return memory.check_memory(
            spec,
            launch,
            run,
            gpus=resources.gpus,
            ours=resources.ours,
            others=resources.others,
            last=last,
            host=memory.host_memory(resources.ours, other_pids),
        )
    except GgufError as error:
        return MemoryCheck(problems=tuple(replace(problem, option="model") for problem in error.problems))
    except (OSError, ValueError) as error:
        return MemoryCheck(problems=(Problem("memory", f"what {spec.name} takes is not known: {error}"),))


def _cuda_number(version: str | None) -> int | None:
    """NVML's own number for a CUDA version: 12.8 is 12080."""
    major, dot, minor = (version or "").partition(".")
    return int(major) * 1000 + int(minor) * 10 if dot and major.isdigit() and minor.isdigit() else None
