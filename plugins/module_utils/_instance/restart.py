# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the old server to the new one: drain, stop, wait until the GPUs' memory is free, start.

Private to gpufleet.llamacpp; may change at any time. Between stop and start no request is answered, so everything that
can be done before is done elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._host import runner
from .._host.gpu import read as gpu
from .._spec.launch import Launch
from .._spec.record import Record
from .._spec.render import Place, unit
from . import observe

# Seconds that a driver may take to give back the memory of a process that has ended.
GPU_TIMEOUT = 20.0
GPU_EVERY = 0.05
# Of what a process held, this part has to be free again; somebody else may have taken a little in between.
GIVEN_BACK = 0.9


@dataclass(frozen=True)
class Restarted:
    """``before``: the runner's state file from before the start, which the gate compares with."""

    before: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True)
class GpuUse:
    """What the old server uses of one GPU, and what was free beside it, in bytes."""

    uuid: str
    index: int
    memory: int
    free: int


def restart(place: Place, record: Record) -> Restarted:
    """Stop what runs and start the launch of the record; returns at once, the gate waits until it is ready.

    Raises ManagerError.
    """
    instance_unit = unit(place, record.spec)
    pid = observe.running(place).get("runner_pid")
    ours = runner.below(pid) if pid else []
    held = _held(ours)
    place.manager.stop(instance_unit)
    before = observe.runner_state(place)
    warnings = cut_requests(before if pid else {}, record.launch)
    warnings += wait_for_gpus(ours, held) if held else []
    place.manager.start(instance_unit)
    return Restarted(before, warnings)


def cut_requests(state: Mapping[str, Any], launch: Launch) -> list[str]:
    """The requests that the runner had to cut when it stopped the server, as a warning; none where there were none."""
    count = state.get("cut") or 0
    if not count:
        return []
    what = "1 request was" if count == 1 else f"{count} requests were"
    return [
        f"{what} still running after {launch.drain_timeout} s and had to be cut. If that is too soon, raise "
        "drain_timeout."
    ]


def _held(pids: Sequence[int]) -> list[GpuUse]:
    """What these processes use of the GPUs; nothing where no GPU can be read."""
    try:
        cards = gpu.read_memory() if pids else []
    except gpu.NvmlUnavailable:
        return []
    sums = [(card, sum(one.memory or 0 for one in card.processes if one.pid in pids)) for card in cards]
    return [GpuUse(card.uuid, card.index, memory, card.memory_free) for card, memory in sums if memory]


def wait_for_gpus(pids: Sequence[int], held: Sequence[GpuUse], timeout: float = GPU_TIMEOUT) -> list[str]:
    """Wait until the processes are off the GPUs and their memory is free; what takes too long is a warning."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            cards = {card.uuid: card for card in gpu.read_memory()}
        except gpu.NvmlUnavailable as error:
            return [f"Whether the old server's GPU memory is free again could not be checked: {error}"]
        late = [
            one
            for one in held
            if (card := cards.get(one.uuid)) is not None
            and not card.error
            and (
                any(process.pid in pids for process in card.processes)
                or card.memory_free < one.free + GIVEN_BACK * one.memory
            )
        ]
        if not late:
            return []
        if time.monotonic() >= deadline:
            which = ", ".join(f"GPU {one.index} ({one.memory >> 20} MiB)" for one in late)
            return [f"GPU memory of the old server was not free {timeout:.0f} s after its end: {which}."]
        time.sleep(GPU_EVERY)
