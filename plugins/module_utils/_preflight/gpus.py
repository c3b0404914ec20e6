# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs that an instance asks for: which they are, whether it can use them, and which processes use them now.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Union

from .._host import process, runner
from .._host.files import read_json
from .._host.gpu.read import Gpu, GpuProcess, NvmlUnavailable, PynvmlMissing
from .._host.gpu.select import resolve
from .._result import Problem
from .._spec import store
from .._spec.launch import Launch
from .._spec.record import Record
from .._spec.spec import Spec

MIB = 1 << 20
# Programs of NVIDIA's Multi-Process Service, which lets several processes share a GPU of mode Exclusive_Process.
MPS = ("nvidia-cuda-mps-control", "nvidia-cuda-mps-server")
COMMAND_CHARACTERS = 80

# The GPUs in PCI order, or why they cannot be read.
GpuReading = Union[Sequence[Gpu], NvmlUnavailable]


@dataclass(frozen=True)
class Neighbour:
    """Another instance of the same home: its GPUs, its processes, and the memory that it was planned to take, in bytes.

    ``comes``: the same run changes it before this instance. Then ``gpus`` and ``planned`` are those after its change,
    and what its processes hold now is free by then.
    """

    name: str
    gpus: tuple[str, ...] = ()  # UUIDs
    pids: frozenset[int] = frozenset()
    planned: Mapping[str, int] = field(default_factory=dict)  # by UUID
    comes: bool = False

    def held(self, gpu: Gpu) -> int:
        """Bytes of a GPU that its processes hold now."""
        return sum(found.memory or 0 for found in gpu.processes if found.pid in self.pids)

    def due(self, gpu: Gpu) -> int:
        """Bytes of a GPU that it will take in addition; negative where its change gives back more than it takes."""
        more = self.planned.get(gpu.uuid, 0) - self.held(gpu)
        return more if self.comes else max(0, more)

    def leaves(self, gpu: Gpu, pid: int) -> bool:
        """Whether this process of the instance ends before this instance starts, and none follows it on the GPU."""
        return self.comes and pid in self.pids and gpu.uuid not in self.gpus


@dataclass(frozen=True)
class GpuCheck:
    """The GPUs, what forbids a start on them, and warnings for a start.

    ``uuids``: for launch.Found.gpus; None where NVML cannot be read and nothing is recorded.
    """

    uuids: tuple[str, ...] | None = ()
    gpus: tuple[Gpu, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def pids_of(launch: Launch | None) -> frozenset[int]:
    """The processes of the running server of the instance with this launch; empty where none runs."""
    try:
        state = (launch and read_json(launch.state_file)) or {}
        if process.alive(state["runner_pid"], state["runner_start"]):
            return frozenset(runner.below(state["runner_pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return frozenset()


def neighbours(home: str, name: str, reading: GpuReading, before: Sequence[Neighbour] = ()) -> list[Neighbour]:
    """The other instances of this home, by their records. ``before``: those that the same run changes before this."""
    found = [other for other in before if other.name != name]
    changed = {other.name for other in found}
    for other, record in store.others(home, name).items():
        if other in changed:
            continue
        planned = {row["uuid"]: row["need"] for row in (record.memory or {}).get("gpus", ())}
        found.append(Neighbour(other, _uuids(record, reading), pids_of(record.launch), planned))
    return found


def _uuids(record: Record, reading: GpuReading) -> tuple[str, ...]:
    if record.launch.gpus is not None:
        return record.launch.gpus
    if isinstance(reading, NvmlUnavailable):
        return ()
    return tuple(gpu.uuid for gpu in resolve(record.spec.gpus, reading)[0])


def mps_runs() -> bool:
    """Whether NVIDIA's Multi-Process Service runs on this host."""
    return any(os.path.basename(argv[0]) in MPS for argv in map(process.command, process.pids()) if argv)


def check_gpus(
    spec: Spec,
    reading: GpuReading,
    *,
    ours: frozenset[int],
    others: Sequence[Neighbour],
    last: Record | None,
    mps: bool,
) -> GpuCheck:
    """Check the GPUs of the spec. Pure. ``ours``: the processes of the running server; ``last``: the record."""
    if not spec.gpus:
        return GpuCheck()
    if isinstance(reading, NvmlUnavailable):
        return _unread(spec, reading, last)
    chosen, wrong = resolve(spec.gpus, reading)
    problems = [replace(problem, option="gpus") for problem in wrong]
    warnings = _moved(spec, chosen, last)
    usable = [gpu for gpu in chosen if not gpu.error]
    for gpu in usable:
        problems += _unusable(gpu, ours, others, mps)
        warnings += _reported_errors(gpu)
    warnings += _strangers(usable, ours, others)
    return GpuCheck(tuple(gpu.uuid for gpu in chosen), tuple(chosen), tuple(problems), tuple(warnings))


def _unread(spec: Spec, error: NvmlUnavailable, last: Record | None) -> GpuCheck:
    """NVML cannot be read. The recorded UUIDs stay, so that this alone does not change the launch."""
    before = recorded(spec, last)
    if isinstance(error, PynvmlMissing):
        return GpuCheck(before, warnings=(f"gpus: {', '.join(spec.gpus)} could not be checked. {error}",))
    hints = ["Without gpus the server runs on the CPU."] if error.no_gpu else []
    names = ", ".join(spec.gpus)
    problems = (
        Problem("gpus", f"{names} cannot be used: {cause.text}", " ".join(filter(None, [cause.remedy, *hints])))
        for cause in error.problems
    )
    return GpuCheck(before, problems=tuple(problems))


def recorded(spec: Spec, last: Record | None) -> tuple[str, ...] | None:
    """The UUIDs that these words for GPUs meant at the last deployment; None where they were not resolved."""
    return last.launch.gpus if last and same_words(spec, last) else None


def same_words(spec: Spec, last: Record) -> bool:
    """Whether the instance was last deployed with the same words for its GPUs."""
    return last.spec.gpus == spec.gpus


def _moved(spec: Spec, chosen: Sequence[Gpu], last: Record | None) -> list[str]:
    before, now = recorded(spec, last), tuple(gpu.uuid for gpu in chosen)
    if before is None or len(before) != len(now) or before == now:
        return []
    return [
        f"gpus: {', '.join(spec.gpus)} meant {', '.join(before)} when this instance was last deployed and means "
        f"{', '.join(now)} now, because the host's GPUs have changed. UUIDs in gpus do not depend on that."
    ]


def _unusable(gpu: Gpu, ours: frozenset[int], others: Sequence[Neighbour], mps: bool) -> list[Problem]:
    """Why an instance cannot use this GPU at all."""
    name = f"GPU {gpu.index} ({gpu.uuid})"
    if gpu.mig:
        remedy = f"Turn MIG off (`nvidia-smi -i {gpu.index} -mig 0` as root, then reset the GPU), or name another GPU."
        return [Problem("gpus", f"MIG is on for {name}, so it cannot be used as a whole", remedy)]
    default = f"Let all processes use it (`nvidia-smi -i {gpu.index} -c DEFAULT` as root)"
    if gpu.compute_mode == "prohibited":
        text = f"{name} accepts no process (compute mode Prohibited)"
        return [Problem("gpus", text, f"{default}, or name another GPU.")]
    if gpu.compute_mode not in ("exclusive_process", "exclusive_thread") or mps:
        return []
    processes = [
        found
        for found in gpu.processes
        if found.pid not in ours and not any(other.leaves(gpu, found.pid) for other in others)
    ]
    present = {found.pid for found in gpu.processes}
    declared = [other for other in others if gpu.uuid in other.gpus and not other.pids & present]
    users = [_user(found, others) for found in processes]
    users += [f"the instance {other.name}, which is declared for it" for other in declared]
    if not users:
        return []
    owners = [_instance_of(found.pid, others) for found in processes] + list(declared)
    text = f"{name} accepts one process (compute mode Exclusive_Process) and is used by {'; '.join(users)}"
    remedy = f"{default}, name another GPU, or run NVIDIA's MPS."
    return [Problem("gpus", text, remedy, may_pass=all(owner and not owner.comes for owner in owners))]


def _reported_errors(gpu: Gpu) -> list[str]:
    """A warning with the errors that NVML reports for a GPU that still works."""
    found = []
    if gpu.recovery_action not in (None, "none"):
        action = str(gpu.recovery_action).replace("_", " ")
        found.append(f"the driver asks for this after an error (Xid): {action}")
    if gpu.ecc_uncorrected:
        found.append(f"{gpu.ecc_uncorrected} uncorrectable memory errors since the driver was loaded")
    if gpu.remapping_failed:
        found.append("a broken row of its memory could not be replaced, so it needs service")
    elif gpu.remapping_pending:
        found.append("broken rows of its memory will be replaced at its next reset")
    if not found:
        return []
    return [f"gpus: GPU {gpu.index} ({gpu.uuid}) has errors: {'; '.join(found)}. Plan a reset of the GPU or the host."]


def _strangers(gpus: Sequence[Gpu], ours: frozenset[int], others: Sequence[Neighbour]) -> list[str]:
    """A warning for each process on the GPUs that belongs to no instance of this home."""
    expected = ours.union(*(other.pids for other in others))
    holds: dict[int, list[str]] = {}
    seen: dict[int, GpuProcess] = {}
    for gpu in gpus:
        for found in gpu.processes:
            program = os.path.basename((found.command or "").partition(" ")[0])
            if found.pid not in expected and program not in MPS:
                seen[found.pid] = found
                holds.setdefault(found.pid, []).append(f"{_mib(found.memory)} on GPU {gpu.index}")
    return [
        f"gpus: {_process(found)} holds {', '.join(holds[pid])} and belongs to no instance of this home."
        for pid, found in seen.items()
    ]


def _user(found: GpuProcess, others: Sequence[Neighbour]) -> str:
    instance = _instance_of(found.pid, others)
    return f"the instance {instance.name} (pid {found.pid})" if instance else _process(found)


def _instance_of(pid: int, others: Sequence[Neighbour]) -> Neighbour | None:
    return next((other for other in others if pid in other.pids), None)


def _process(found: GpuProcess) -> str:
    if found.user is None:
        return f"pid {found.pid} (a process that this user may not see)"
    return f"pid {found.pid} of {found.user} ({(found.command or 'no command line')[:COMMAND_CHARACTERS]})"


def _mib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size // MIB} MiB"
