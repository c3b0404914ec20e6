# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the old server to the new one: drain, stop, see that the GPUs' memory is given back, start.

Private to gpufleet.llamacpp; may change at any time. The port answers to nobody between stop and start, so whatever can
be done before is done before, and here stands only what cannot.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._host import runner
from .._host.gpu import read as gpu
from . import observe
from .observe import Place

# Seconds that a driver may take to give back the memory of a process that has ended.
GPU_TIMEOUT = 20.0
GPU_EVERY = 0.05
# Of what a process held, this part has to be free again; somebody else may have taken a little in between.
GIVEN_BACK = 0.9


@dataclass(frozen=True)
class Swapped:
    """What the gate has to know: the runner's account from before the start. And what the operator has to."""

    before: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True)
class Held:
    """What the old server has of one GPU: bytes that it holds, and bytes that were free besides."""

    uuid: str
    index: int
    memory: int
    free: int


def swap(place: Place, value: Mapping[str, Any]) -> Swapped:
    """Stop what runs and start the launch in ``value``; returns at once, readiness is the gate's to see.

    Raises ManagerError.
    """
    unit = observe.unit(place, value["spec"])
    pid = observe.running(place).get("runner_pid")
    ours = runner.below(pid) if pid else []
    held = _held(ours)
    place.manager.stop(unit)
    before = observe.account(place)
    warnings = cut(before if pid else {}, value)
    warnings += wait_for_gpus(ours, held) if held else []
    place.manager.start(unit)
    return Swapped(before, warnings)


def cut(account: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    """The requests that the runner had to cut when it stopped the server, as a warning; none where there were none."""
    count = account.get("cut") or 0
    if not count:
        return []
    what = "1 request was" if count == 1 else f"{count} requests were"
    limit = value["launch"].get("drain_timeout")
    return [f"{what} still running after {limit} s and had to be cut. If that is too soon, allow more drain_timeout."]


def _held(pids: Sequence[int]) -> list[Held]:
    """What these processes hold of the GPUs; nothing where there are none to be read."""
    try:
        cards = gpu.read_memory() if pids else []
    except gpu.NvmlUnavailable:
        return []
    sums = [(card, sum(one.memory or 0 for one in card.processes if one.pid in pids)) for card in cards]
    return [Held(card.uuid, card.index, memory, card.memory_free) for card, memory in sums if memory]


def wait_for_gpus(pids: Sequence[int], held: Sequence[Held], timeout: float = GPU_TIMEOUT) -> list[str]:
    """Wait until the processes are off the GPUs and their memory is free again; what is not in time is a warning."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            cards = {card.uuid: card for card in gpu.read_memory()}
        except gpu.NvmlUnavailable as error:
            return [f"Whether the GPUs' memory was given back could not be seen: {error}"]
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
            return [f"The memory that the old server held was not free {timeout:.0f} s after its end: {which}."]
        time.sleep(GPU_EVERY)
