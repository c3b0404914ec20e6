# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs that an instance asks for: which they are, whether it can have them, and who else is on them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from .._host import process, runner
from .._host.files import read_json
from .._host.gpu.read import Gpu, GpuProcess, NvmlUnavailable, PynvmlMissing
from .._host.gpu.select import resolve
from .._spec import record
from .._spec.spec import Spec

MIB = 1 << 20
# Programs of NVIDIA's Multi-Process Service, which lets several processes share a GPU of mode Exclusive_Process.
MPS = ("nvidia-cuda-mps-control", "nvidia-cuda-mps-server")
COMMAND_CHARACTERS = 80

# The GPUs in PCI order, or why they cannot be read.
Reading = Union[Sequence[Gpu], NvmlUnavailable]


@dataclass(frozen=True)
class Neighbour:
    """Another instance of the same home: its GPUs, its processes, and what it was planned to take, in bytes.

    ``comes``: that is what it will be, as the same run changes it before: what it holds now, it gives back.
    """

    name: str
    gpus: tuple[str, ...] = ()  # UUIDs
    pids: frozenset[int] = frozenset()
    planned: Mapping[str, int] = field(default_factory=dict)  # by UUID
    comes: bool = False

    def due(self, gpu: Gpu) -> int:
        """Bytes that it is yet to take of a GPU; less than 0 where it comes, and gives back."""
        held = sum(found.memory or 0 for found in gpu.processes if found.pid in self.pids)
        yet = self.planned.get(gpu.uuid, 0) - held
        return yet if self.comes else max(0, yet)

    def leaves(self, gpu: Gpu, pid: int) -> bool:
        """Whether this process of its own is gone from the GPU by then."""
        return self.comes and pid in self.pids and gpu.uuid not in self.gpus


@dataclass(frozen=True)
class GpuCheck:
    """The outcome. ``uuids`` are what launch.Found.gpus takes; None where NVML could not be asked and nothing is known.

    ``rows`` is for the module's result: who is on each GPU asked for. Memory is in bytes.
    """

    uuids: tuple[str, ...] | None = ()
    gpus: tuple[Gpu, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()


def pids_of(value: Mapping[str, Any] | None) -> frozenset[int]:
    """The processes of the server that the instance with this record runs now; empty where it runs none."""
    try:
        state = read_json((value or {})["launch"]["state_file"]) or {}
        if process.alive(state["runner_pid"], state["runner_start"]):
            return frozenset(runner.below(state["runner_pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return frozenset()


def neighbours(home: str, name: str, reading: Reading, before: Sequence[Neighbour] = ()) -> list[Neighbour]:
    """The other instances that are declared in this home, from their records; ``before``: as they will be by then."""
    found = [other for other in before if other.name != name]
    coming = {other.name for other in found}
    for other, value in record.others(home, name).items():
        if other in coming:
            continue
        planned = {row["uuid"]: row["need"] for row in (value.get("memory") or {}).get("gpus", ())}
        found.append(Neighbour(other, _uuids(value, reading), pids_of(value), planned))
    return found


def _uuids(value: Mapping[str, Any], reading: Reading) -> tuple[str, ...]:
    known = value["launch"].get("gpus")
    if known is not None:
        return tuple(known)
    if isinstance(reading, NvmlUnavailable):
        return ()
    return tuple(gpu.uuid for gpu in resolve(value["spec"]["gpus"], reading)[0])


def mps_runs() -> bool:
    """Whether NVIDIA's Multi-Process Service runs on this host."""
    return any(os.path.basename(argv[0]) in MPS for argv in map(process.command, process.pids()) if argv)


def check(
    spec: Spec,
    reading: Reading,
    *,
    ours: frozenset[int],
    others: Sequence[Neighbour],
    last: Mapping[str, Any] | None,
    mps: bool,
) -> GpuCheck:
    """Look at the GPUs of the spec. Pure.

    Call it before the launch is built, whatever is to be done, because the launch names the GPUs by UUID::

        try:
            reading = gpu.read_gpus()
        except gpu.NvmlUnavailable as error:  # PynvmlMissing: after ensure_library, or in check mode on an empty host
            reading = error
        others = gpus.neighbours(home, name, reading)
        seen = gpus.check(spec, reading, ours=gpus.pids_of(last), others=others, last=last, mps=gpus.mps_runs())
        found = launch.Found(..., gpus=seen.uuids)

    ``last`` is the instance's record, ``ours`` the processes of its running server. The problems forbid a start, and
    nothing else: a server that runs is not touched for them. The warnings matter where it is started.
    """
    if not spec.gpus:
        return GpuCheck()
    if isinstance(reading, NvmlUnavailable):
        return _unread(spec, reading, last)
    chosen, wrong = resolve(spec.gpus, reading)
    problems = [f"gpus: {problem}" for problem in wrong]
    warnings = _moved(spec, chosen, last)
    usable = [gpu for gpu in chosen if not gpu.error]
    for gpu in usable:
        problems += _unusable(gpu, ours, others, mps)
        warnings += _unwell(gpu)
    warnings += _strangers(usable, ours, others)
    rows = tuple(_row(gpu, ours, others) for gpu in chosen)
    return GpuCheck(tuple(gpu.uuid for gpu in chosen), tuple(chosen), tuple(problems), tuple(warnings), rows)


def _unread(spec: Spec, error: NvmlUnavailable, last: Mapping[str, Any] | None) -> GpuCheck:
    """NVML says nothing. What was resolved once stays, so that this alone makes no other launch."""
    before = known(spec, last)
    if isinstance(error, PynvmlMissing):
        said = f"gpus: {', '.join(spec.gpus)} could not be looked at. {error}"
        return GpuCheck(before, warnings=(said,))
    hint = " Without gpus the server runs on the CPU." if error.no_gpu else ""
    return GpuCheck(before, problems=(f"gpus: {', '.join(spec.gpus)} cannot be used. {error}{hint}",))


def known(spec: Spec, last: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """What the same words meant when the instance was last started; None where they were passed on as they are."""
    meant = last["launch"].get("gpus") if last and same_words(spec, last) else None
    return None if meant is None else tuple(meant)


def same_words(spec: Spec, last: Mapping[str, Any]) -> bool:
    """Whether the instance was last deployed with the same words for its GPUs."""
    return list(last["spec"]["gpus"]) == list(spec.gpus)


def _moved(spec: Spec, chosen: Sequence[Gpu], last: Mapping[str, Any] | None) -> list[str]:
    before, now = known(spec, last), tuple(gpu.uuid for gpu in chosen)
    if before is None or len(before) != len(now) or before == now:
        return []
    return [
        f"gpus: {', '.join(spec.gpus)} meant {', '.join(before)} when this instance was last deployed and means "
        f"{', '.join(now)} now: the host's GPUs have changed. To be safe from that, name GPUs by UUID."
    ]


def _unusable(gpu: Gpu, ours: frozenset[int], others: Sequence[Neighbour], mps: bool) -> list[str]:
    """Why an instance cannot be on this GPU at all."""
    if gpu.mig:
        return [
            f"gpus: MIG is on for GPU {gpu.index} ({gpu.uuid}), so it cannot be used as a whole. Turn it off "
            f"(`nvidia-smi -i {gpu.index} -mig 0` as root, then reset the GPU), or name another GPU."
        ]
    remedy = f"`nvidia-smi -i {gpu.index} -c DEFAULT` as root lets every process in"
    if gpu.compute_mode == "prohibited":
        return [
            f"gpus: GPU {gpu.index} ({gpu.uuid}) lets no process in (compute mode Prohibited). {remedy}; or name "
            "another GPU."
        ]
    if gpu.compute_mode not in ("exclusive_process", "exclusive_thread") or mps:
        return []
    users = [
        _who(found, others)
        for found in gpu.processes
        if found.pid not in ours and not any(other.leaves(gpu, found.pid) for other in others)
    ]
    present = {found.pid for found in gpu.processes}
    users += [
        f"the instance {other.name}, which is declared for it"
        for other in others
        if gpu.uuid in other.gpus and not other.pids & present
    ]
    if not users:
        return []
    return [
        f"gpus: GPU {gpu.index} ({gpu.uuid}) lets one process in (compute mode Exclusive_Process) and is used by "
        f"{'; '.join(users)}. {remedy}; or name another GPU, or run NVIDIA's MPS."
    ]


def _unwell(gpu: Gpu) -> list[str]:
    """What NVML tells about errors of a GPU that still works."""
    found = []
    if gpu.recovery_action not in (None, "none"):
        found.append(f"its driver asks for {str(gpu.recovery_action).replace('_', ' ')} after an error (Xid)")
    if gpu.ecc_uncorrected:
        found.append(f"it had {gpu.ecc_uncorrected} memory errors that could not be corrected since the driver loaded")
    if gpu.remapping_failed:
        found.append("a broken row of its memory could not be replaced, so it needs service")
    elif gpu.remapping_pending:
        found.append("broken rows of its memory are replaced only at its next reset")
    if not found:
        return []
    return [f"gpus: GPU {gpu.index} ({gpu.uuid}) is not well: {'; '.join(found)}. Plan a reset of the GPU or the host."]


def _strangers(gpus: Sequence[Gpu], ours: frozenset[int], others: Sequence[Neighbour]) -> list[str]:
    """One sentence for each process on the GPUs that is no instance of this home."""
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
        f"gpus: {_process(found)} holds {', '.join(holds[pid])}, and is no instance of this home."
        for pid, found in seen.items()
    ]


def _who(found: GpuProcess, others: Sequence[Neighbour]) -> str:
    name = _instance_of(found.pid, others)
    return f"the instance {name} (pid {found.pid})" if name else _process(found)


def _instance_of(pid: int, others: Sequence[Neighbour]) -> str | None:
    return next((other.name for other in others if pid in other.pids), None)


def _process(found: GpuProcess) -> str:
    if found.user is None:
        return f"pid {found.pid} (a process that this user may not see)"
    return f"pid {found.pid} of {found.user} ({(found.command or 'no command line')[:COMMAND_CHARACTERS]})"


def _mib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size // MIB} MiB"


def _row(gpu: Gpu, ours: frozenset[int], others: Sequence[Neighbour]) -> dict[str, Any]:
    return {
        "gpu": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "memory_total": gpu.memory_total,
        "memory_free": gpu.memory_free,
        "processes": [
            {
                "pid": found.pid,
                "user": found.user,
                "command": found.command,
                "memory": found.memory,
                "ours": found.pid in ours,
                "instance": _instance_of(found.pid, others),
            }
            for found in gpu.processes
        ],
    }
