# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does an instance fit into the memory of its GPUs and of the host?

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._gguf import file as gguf
from .._host.gpu.read import Gpu
from .._host.runtime import Run
from .._llama.memory import estimate as memory_estimate
from .._llama.memory import fit_params
from .._llama.memory import options as memory_options
from .._llama.memory.fit_params import HOST, Device
from .._llama.memory.options import MemoryOptions
from .._result import Problem
from .._spec import launch
from .._spec.launch import Launch
from .._spec.record import Record
from .._spec.spec import Spec
from .gpus import Neighbour

MIB = 1 << 20
TOOL = "llama-fit-params"
ESTIMATE = "estimate"
# What CUDA and its libraries take on a GPU, in addition to what llama.cpp allocates.
CUDA = 512 * MIB
# What must stay free on each GPU: the larger of this (llama.cpp's own --fit-target) and this part of the need.
SPARE, SPARE_PART = 1024 * MIB, 0.05


@dataclass(frozen=True)
class GpuNeed:
    """The memory that the instance needs on one GPU, in bytes. ``margin`` is added to an estimate."""

    uuid: str
    gpu: int
    model: int
    context: int
    compute: int
    cuda: int
    margin: int
    need: int


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a launch needs.

    ``host``: bytes of model, context, compute and cache_ram (-1: no limit), and whether the model is in the page cache.
    ``adapts``: llama-server uses less where memory is short. ``notes``: warnings.
    """

    launch: str
    source: str
    gpus: tuple[GpuNeed, ...]
    host: Mapping[str, Any]
    adapts: bool
    notes: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """The plan as the instance's record has it under ``memory``: JSON types only."""
        return {**asdict(self), "gpus": [asdict(need) for need in self.gpus], "notes": list(self.notes)}


@dataclass(frozen=True)
class HostMemory:
    """Bytes of the host's memory: available now, held by the instance's own server, held by the other instances."""

    available: int
    given_back: int
    others: int = 0


@dataclass(frozen=True)
class MemoryCheck:
    """Problems and warnings; ``rows`` and ``source`` for the module's result; ``record`` for the instance's record.

    Memory is in bytes.
    """

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    source: str | None = None
    record: Mapping[str, Any] | None = None


def host_memory(ours: frozenset[int], others: frozenset[int]) -> HostMemory:
    """The host's memory now; ``ours`` and ``others`` are pids. Raises OSError and ValueError."""
    with open("/proc/meminfo", encoding="ascii") as file:
        table = dict(line.split(":", 1) for line in file)
    available = int(table["MemAvailable"].split()[0]) * 1024
    return HostMemory(available, sum(map(_private, ours)), sum(map(_private, others)))


def _private(pid: int) -> int:
    """Bytes of a process alone: resident, without files and shared memory (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            fields = [int(field) for field in file.read().split()]
    except OSError:
        return 0
    return max(0, fields[1] - fields[2]) * os.sysconf("SC_PAGE_SIZE")


def check_memory(
    spec: Spec,
    launch: Launch,
    run: Run,
    *,
    gpus: Sequence[Gpu],
    ours: frozenset[int],
    others: Sequence[Neighbour],
    last: Record | None,
    host: HostMemory,
) -> MemoryCheck:
    """Whether the launch fits. Starts one container where the record does not have the answer.

    ``gpus``: those of the spec; empty where NVML cannot be read, and then nothing is checked. ``ours``: the processes
    that end before this launch starts. ``last``: the instance's record. Raises OSError and GgufError.
    """
    if spec.gpus and not gpus:
        return MemoryCheck()
    plan = _recorded_plan(last, launch.id) or _plan(spec, launch, run, gpus)
    if isinstance(plan, Problem):
        return MemoryCheck(problems=(plan,))
    rows = [_row(need, gpu, ours, others) for need in plan.gpus for gpu in gpus if gpu.uuid == need.uuid]
    problems, warnings = _check_gpus(plan, rows, gpus, others)
    host_problems, host_warnings = _check_host(plan, host)
    return MemoryCheck(
        tuple(problems + host_problems),
        (*plan.notes, *warnings, *host_warnings),
        tuple(rows),
        plan.source,
        plan.as_record(),
    )


def _recorded_plan(last: Record | None, launch_id: str) -> MemoryPlan | None:
    """The plan that the record has of this launch, or None."""
    value = last.memory if last else None
    try:
        if value is None or value["launch"] != launch_id:
            return None
        needs = tuple(GpuNeed(**need) for need in value["gpus"])
        return MemoryPlan(**{**value, "gpus": needs, "notes": tuple(value["notes"])})
    except (KeyError, TypeError):
        return None


def recorded_memory(last: Record | None, launch_id: str) -> Mapping[str, Any] | None:
    """What the record has under ``memory`` of this launch, or None."""
    plan = _recorded_plan(last, launch_id)
    return plan.as_record() if plan else None


def _plan(spec: Spec, launch: Launch, run: Run, gpus: Sequence[Gpu]) -> MemoryPlan | Problem:
    """The memory by the image's own tool, or else by the estimate; a Problem for a model that cannot be loaded."""
    options = memory_options.parse(launch.arguments, dict(spec.env))
    answer = fit_params.ask(launch.container, launch.server, launch.arguments, options.slots, run)
    if answer.refused:
        remedy = "Fetch the model again if it is damaged, or use an image with a newer llama.cpp."
        return Problem("model", f"the llama.cpp in {spec.image} cannot load {spec.model}: {answer.refused}", remedy)
    devices = {device.name: device for device in answer.devices}
    on_gpus: Sequence[Device | None] = [devices.get(f"CUDA{place}") for place in range(len(gpus))]
    notes = []
    source = TOOL
    if answer.silent or (gpus and not any(on_gpus) and options.layers != 0):
        source = ESTIMATE if gpus or answer.silent else TOOL
        names = ", ".join(device.name for device in answer.devices)
        why = answer.silent or (
            f"{TOOL} in {spec.image} sees no GPU ({names}), so this image would run the model on the CPU"
        )
        notes.append(f"memory: {why}. The memory that it needs is estimated from the model's header.")
    if source == ESTIMATE:
        parts = [gguf.read(path) for path in gguf.split_paths(spec.model)]
        *on_gpus, on_host = memory_estimate.estimate(parts, options, [gpu.memory_free for gpu in gpus])
        devices = {HOST: on_host}
        if options.overrides:
            notes.append("memory: the estimate ignores --override-tensor and counts those tensors on the GPUs.")
    extra, side_notes = _side_files(spec, options, len(gpus))
    notes += side_notes
    needs = tuple(_need(gpu, device, more, source) for gpu, device, more in zip(gpus, on_gpus, extra))
    idle = [str(need.gpu) for need in needs if not need.need]
    if idle:
        notes.append(f"memory: no part of the model is placed on GPU {', '.join(idle)}. Remove it from gpus.")
    return MemoryPlan(launch.id, source, needs, _host(devices[HOST], options), options.adapts, tuple(notes))


def _need(gpu: Gpu, device: Device | None, extra: int, source: str) -> GpuNeed:
    if device is None:
        return GpuNeed(gpu.uuid, gpu.index, 0, 0, 0, 0, 0, 0)
    model = device.model + extra
    asked = model + device.context + device.compute
    margin = int(asked * memory_estimate.MARGIN) if source == ESTIMATE else 0
    need = asked + margin + CUDA
    return GpuNeed(gpu.uuid, gpu.index, model, device.context, device.compute, CUDA, margin, need)


def _host(device: Device, options: MemoryOptions) -> dict[str, Any]:
    cache = options.cache_ram * MIB if options.cache_ram >= 0 else -1
    return {
        "model": device.model,
        "context": device.context,
        "compute": device.compute,
        "cache_ram": cache,
        "in_page_cache": options.in_page_cache,
    }


def _side_files(spec: Spec, options: MemoryOptions, gpus: int) -> tuple[list[int], list[str]]:
    """Bytes on each GPU of projector and draft model, which neither the tool nor the estimate counts; and notes."""
    extra = [0] * gpus
    binds = launch.all_binds(spec)
    notes = []
    for path, what in (
        (options.projector if options.projector_on_gpu else None, "projector"),
        (options.draft, "draft"),
    ):
        if not path or not gpus:
            continue
        try:
            size = os.path.getsize(launch.outside(path, binds))
        except OSError:
            notes.append(f"memory: {path} is not counted, because it is not on the host.")
            continue
        if what == "projector":
            extra[0] += size
        else:
            extra = [one + size // gpus for one in extra]
            notes.append(f"memory: of the draft model {path} only the weights are counted, not its context.")
    return extra, notes


def _row(need: GpuNeed, gpu: Gpu, ours: frozenset[int], others: Sequence[Neighbour]) -> dict[str, Any]:
    """One GPU: the need, what is free, what the old server gives back, and what other instances will still take."""
    back = sum(found.memory or 0 for found in gpu.processes if found.pid in ours)
    due = sum(other.due(gpu) for other in others)
    left = gpu.memory_free + back - due - need.need
    return {
        **asdict(need),
        "free": gpu.memory_free,
        "given_back": back,
        "others": due,
        "left": left,
        "short": max(0, _spare(need.need) - left) if need.need else 0,
    }


def _spare(need: int) -> int:
    """Bytes that must stay free on a GPU beyond this need."""
    return max(SPARE, int(need * SPARE_PART))


def _check_gpus(
    plan: MemoryPlan, rows: Sequence[Mapping[str, Any]], gpus: Sequence[Gpu], others: Sequence[Neighbour]
) -> tuple[list[Problem], list[str]]:
    """Problems and warnings: too little memory on a GPU."""
    short = [row for row in rows if row["short"]]
    if not short:
        return [], []
    source = "the image's own llama-fit-params" if plan.source == TOOL else "an estimate from the model's header"
    text = f"it does not fit on {'; '.join(map(_shortage, short))}. These figures are from {source}"
    waiting = sorted({other.name for other in others for row in short if other.planned.get(row["uuid"])})
    if waiting:
        text += f", and what the declared instances {', '.join(waiting)} need is counted in"
    if plan.adapts:
        return [], [
            f"memory: {text}. llama-server (--fit on) will use fewer GPU layers or a smaller context, so it is slower "
            "or serves less."
        ]
    remedy = (
        "Use more or other GPUs, a smaller context_size or a smaller cache (-ctk q8_0 and -ctv q8_0 in args), or end "
        "what else uses these GPUs."
    )
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    may_pass = all(row["short"] <= _of_others(by_uuid[row["uuid"]], others) for row in short)
    return [Problem("memory", text, remedy, may_pass=may_pass)], []


def _shortage(row: Mapping[str, Any]) -> str:
    """What one GPU lacks, and of what: in MiB."""
    mib = {key: value // MIB for key, value in row.items() if key not in ("gpu", "uuid")}
    parts = ", ".join(f"{key} {mib[key]}" for key in ("model", "context", "compute", "cuda", "margin") if mib[key])
    available = f"{mib['free']} MiB free"
    if mib["given_back"]:
        available += f" + {mib['given_back']} of the old server"
    if mib["others"]:
        sign, verb = ("-", "will take") if mib["others"] > 0 else ("+", "give back")
        available += f" {sign} {abs(mib['others'])} that other instances {verb}"
    return (
        f"GPU {row['gpu']} ({-(-row['short'] // MIB)} MiB too little): it needs {mib['need']} MiB ({parts}) and "
        f"{_spare(row['need']) // MIB} to spare, of {available}"
    )


def _of_others(gpu: Gpu, others: Sequence[Neighbour]) -> int:
    """Bytes of a GPU that other instances hold or will take, and that a change of theirs can free."""
    return sum(other.held(gpu) + other.due(gpu) for other in others if not other.comes)


def _check_host(plan: MemoryPlan, host: HostMemory) -> tuple[list[Problem], list[str]]:
    """Problems and warnings: too little memory on the host."""
    parts = plan.host
    available = host.available + host.given_back
    must = parts["context"] + parts["compute"] + (0 if parts["in_page_cache"] else parts["model"])
    if must > available:
        text = (
            f"it takes {must // MIB} MiB of the host's memory (context {parts['context'] // MIB}, compute "
            f"{parts['compute'] // MIB}, model {parts['model'] // MIB}), and {available // MIB} MiB are available, so "
            "the kernel would kill it"
        )
        remedy = "Put more layers on GPUs (gpu_layers), use a smaller context_size, or free memory."
        return [Problem("memory", text, remedy, may_pass=must <= available + host.others)], []
    most = must + max(0, parts["cache_ram"]) + (parts["model"] if parts["in_page_cache"] else 0)
    if most <= available:
        return [], []
    return [], [
        f"memory: it may take {most // MIB} MiB of the host's memory ({max(0, parts['cache_ram']) // MIB} of them for "
        f"the prompts of earlier requests, --cache-ram), and {available // MIB} MiB are available. Use a smaller "
        "--cache-ram in args."
    ]
