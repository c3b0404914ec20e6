# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an instance fits: what it takes on each GPU and on the host, against what is free there.

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
from .._spec import launch
from .._spec.spec import Spec
from .gpus import Neighbour

MIB = 1 << 20
TOOL = "llama-fit-params"
ESTIMATE = "estimate"
# What CUDA and its libraries take on a GPU beside what llama.cpp asks for.
CUDA = 512 * MIB
# What has to stay free on each GPU: this (llama.cpp's own --fit-target), or this part of what the instance takes.
SPARE, SPARE_PART = 1024 * MIB, 0.05


@dataclass(frozen=True)
class GpuNeed:
    """What the instance takes on one GPU, in bytes; margin is what an estimate adds for being one."""

    uuid: str
    gpu: int
    model: int
    context: int
    compute: int
    cuda: int
    margin: int
    need: int


@dataclass(frozen=True)
class Plan:
    """What a launch takes. ``host`` is in bytes: model, context, compute, cache_ram (-1: without a bound), and whether
    the model lies in the page cache. adapts: llama-server takes less where memory is short.
    """

    launch: str
    source: str
    gpus: tuple[GpuNeed, ...]
    host: Mapping[str, Any]
    adapts: bool
    notes: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """What the instance's record keeps under ``memory``: JSON types only."""
        return {**asdict(self), "gpus": [asdict(need) for need in self.gpus], "notes": list(self.notes)}


@dataclass(frozen=True)
class HostMemory:
    """Bytes of the host's memory that a new program can have, and that the instance's own server will give back."""

    available: int
    given_back: int


@dataclass(frozen=True)
class MemoryCheck:
    """The outcome. ``record`` goes into the instance's record as ``memory``, and to the gate; ``rows`` and ``source``
    into the module's result as ``memory`` and ``memory_source``. Memory is in bytes.
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    source: str | None = None
    host: Mapping[str, Any] | None = None
    record: Mapping[str, Any] | None = None


def host_memory(ours: frozenset[int]) -> HostMemory:
    """The host's memory as it is now. Raises OSError, ValueError."""
    with open("/proc/meminfo", encoding="ascii") as file:
        table = dict(line.split(":", 1) for line in file)
    return HostMemory(int(table["MemAvailable"].split()[0]) * 1024, sum(map(_private, ours)))


def _private(pid: int) -> int:
    """Bytes that a process holds for itself: resident, without files and shared memory (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            fields = [int(field) for field in file.read().split()]
    except OSError:
        return 0
    return max(0, fields[1] - fields[2]) * os.sysconf("SC_PAGE_SIZE")


def check(
    spec: Spec,
    start: Mapping[str, Any],
    run: Run,
    *,
    gpus: Sequence[Gpu],
    ours: frozenset[int],
    others: Sequence[Neighbour],
    last: Mapping[str, Any] | None,
    host: HostMemory,
) -> MemoryCheck:
    """What the launch takes, and whether there is room for it. Runs one container where the record does not know.

    Call it where the plan has a start (or the record has no ``memory`` of this launch), image and model are there, and
    gpus.check found no problem::

        fits = memory.check(spec, want.record["launch"], run, gpus=seen.gpus, ours=ours, others=others, last=last,
                            host=memory.host_memory(ours))
        record["memory"] = fits.record      # also where nothing starts
        result["memory"], result["memory_source"] = fits.rows, fits.source

    ``ours`` are the processes that end before this launch starts; ``last`` is the instance's record. Where GPUs are
    asked for and NVML could not be asked, nothing is found out and nothing is said. Raises OSError and GgufError.
    """
    if spec.gpus and not gpus:
        return MemoryCheck()
    plan = remembered(last, start["id"])
    if plan is None:
        answer = _plan(spec, start, run, gpus)
        if isinstance(answer, str):
            return MemoryCheck(problems=(answer,))
        plan = answer
    rows = [_row(need, gpu, ours, others) for need in plan.gpus for gpu in gpus if gpu.uuid == need.uuid]
    problems, warnings = _gpu_sentences(plan, rows, others, gpus)
    host_problems, host_warnings = _host_sentences(plan, host)
    return MemoryCheck(
        tuple(problems + host_problems),
        (*plan.notes, *warnings, *host_warnings),
        tuple(rows),
        plan.source,
        {**plan.host, "available": host.available, "given_back": host.given_back},
        plan.as_record(),
    )


def remembered(last: Mapping[str, Any] | None, launch_id: str) -> Plan | None:
    """What the record knows of this very launch, or None."""
    known = (last or {}).get("memory")
    try:
        if known is None or known["launch"] != launch_id:
            return None
        needs = tuple(GpuNeed(**need) for need in known["gpus"])
        return Plan(**{**known, "gpus": needs, "notes": tuple(known["notes"])})
    except (KeyError, TypeError):
        return None


def known(last: Mapping[str, Any] | None, value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the last record has of the launch in ``value``, as that record has it, or None."""
    found = remembered(last, value["launch"]["id"])
    return found.as_record() if found else None


def _plan(spec: Spec, start: Mapping[str, Any], run: Run, gpus: Sequence[Gpu]) -> Plan | str:
    """What the image's own tool says, or else the estimate; or the sentence that refuses the model."""
    argv = start["argv"]
    arguments = argv[argv.index(spec.image) + 2 :]
    options = memory_options.parse(arguments, dict(spec.env))
    answer = fit_params.ask(argv, spec.image, options.slots, run)
    if answer.refused:
        return (
            f"model: the llama.cpp in {spec.image} cannot load {spec.model}: {answer.refused}. Get the model again if "
            "it is damaged, or use an image with a newer llama.cpp."
        )
    devices = {device.name: device for device in answer.devices}
    by_place: Sequence[Device | None] = [devices.get(f"CUDA{place}") for place in range(len(gpus))]
    notes = []
    source = TOOL
    if answer.silent or (gpus and not any(by_place) and options.layers != 0):
        source = ESTIMATE if gpus or answer.silent else TOOL
        why = answer.silent or (
            f"{TOOL} in {spec.image} sees no GPU ({_names(answer.devices)}), so this image would run the model on the "
            "CPU"
        )
        notes.append(f"memory: {why}. What it takes is an estimate from the model's header.")
    if source == ESTIMATE:
        parts = [gguf.read(path) for path in gguf.split_paths(spec.model)]
        *by_place, guessed = memory_estimate.estimate(parts, options, [gpu.memory_free for gpu in gpus])
        devices = {HOST: guessed}
        if options.overrides:
            notes.append(
                "memory: the estimate knows nothing of --override-tensor and counts those tensors on the GPUs."
            )
    extra, said = _side_files(spec, options, len(gpus))
    notes += said
    needs = tuple(_need(gpu, device, more, source) for gpu, device, more in zip(gpus, by_place, extra))
    idle = [str(need.gpu) for need in needs if not need.need]
    if idle:
        notes.append(f"memory: nothing of the model comes onto GPU {', '.join(idle)}; leave it out of gpus.")
    return Plan(start["id"], source, needs, _host(devices[HOST], options), options.adapts, tuple(notes))


def _names(devices: Sequence[Device]) -> str:
    return ", ".join(device.name for device in devices)


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
    """Bytes on each GPU of the projector and the draft model, which neither the tool nor the estimate counts."""
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
            notes.append(f"memory: {path} is not counted, because it was not found on the host.")
            continue
        if what == "projector":
            extra[0] += size
        else:
            extra = [one + size // gpus for one in extra]
            notes.append(f"memory: the context of the draft model {path} is not counted, only its weights.")
    return extra, notes


def _row(need: GpuNeed, gpu: Gpu, ours: frozenset[int], others: Sequence[Neighbour]) -> dict[str, Any]:
    """The need against what the GPU has: what the old server gives back, and what other instances are yet to take."""
    back = sum(found.memory or 0 for found in gpu.processes if found.pid in ours)
    due = sum(other.due(gpu) for other in others)
    left = gpu.memory_free + back - due - need.need
    spare = max(SPARE, int(need.need * SPARE_PART)) if need.need else 0
    return {
        **asdict(need),
        "free": gpu.memory_free,
        "given_back": back,
        "others": due,
        "left": left,
        "short": max(0, spare - left) if need.need else 0,
    }


COLUMNS = ("model", "context", "compute", "cuda", "margin", "need", "free", "given_back", "others", "left")
HEADS = ("GPU", "model", "context", "compute", "CUDA", "margin", "need", "free", "+old", "-others", "left")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in MiB, at most 80 characters wide."""
    lines = [HEADS] + [(str(row["gpu"]), *(str(row[column] // MIB) for column in COLUMNS)) for row in rows]
    return "\n".join(
        f"{first:>3}" + "".join(f"{word:>{max(7, len(head) + 1)}}" for word, head in zip(rest, HEADS[1:]))
        for first, *rest in lines
    )


def _gpu_sentences(
    plan: Plan, rows: Sequence[Mapping[str, Any]], others: Sequence[Neighbour], gpus: Sequence[Gpu]
) -> tuple[list[str], list[str]]:
    """Problems and warnings: too little memory on a GPU."""
    short = [row for row in rows if row["short"]]
    if not short:
        return [], []
    lacking = ", ".join(f"GPU {row['gpu']} ({-(-row['short'] // MIB)} MiB too little)" for row in short)
    whose = "the image's own llama-fit-params" if plan.source == TOOL else "an estimate from the model's header"
    waiting = sorted({other.name for other in others for row in short if other.planned.get(row["uuid"])})
    counted = f" Counted in: what the declared instances {', '.join(waiting)} take." if waiting else ""
    said = (
        f"memory: it does not fit on {lacking}, according to {whose}.{counted} In MiB; left has to be at least "
        f"{SPARE // MIB} and 5 % of need:\n{table(rows)}\n"
    )
    if plan.adapts:
        return [], [
            said + "llama-server (--fit on) will take fewer layers or a smaller context, and be slower or less."
        ]
    return [
        said + "Give it more or other GPUs, a smaller context_size or a smaller cache (-ctk q8_0 and -ctv q8_0 in "
        "args), or end what else is on them."
    ], []


def _host_sentences(plan: Plan, host: HostMemory) -> tuple[list[str], list[str]]:
    """Problems and warnings: too little memory on the host."""
    parts = plan.host
    room = host.available + host.given_back
    must = parts["context"] + parts["compute"] + (0 if parts["in_page_cache"] else parts["model"])
    if must > room:
        return [
            f"memory: on the host it takes {must // MIB} MiB (context {parts['context'] // MIB}, compute "
            f"{parts['compute'] // MIB}, model {parts['model'] // MIB}), and {room // MIB} MiB are available: the "
            "kernel would end it. Put more layers on GPUs (gpu_layers), choose a smaller context_size, or free memory."
        ], []
    may = must + max(0, parts["cache_ram"]) + (parts["model"] if parts["in_page_cache"] else 0)
    if may <= room:
        return [], []
    return [], [
        f"memory: on the host it may take {may // MIB} MiB (of these {max(0, parts['cache_ram']) // MIB} for the "
        f"prompts of earlier requests, --cache-ram), and {room // MIB} MiB are available. Choose a smaller --cache-ram "
        "in args."
    ]
