# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server really runs on the GPUs that it was given, and on no other, by what NVML shows. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._host.gpu.read import Gpu

MIB = 1 << 20
# How far what is held may lie from the plan: this part of it, and of an estimate that part.
TOLERANCE = {"llama-fit-params": 0.15, "estimate": 0.5}
# What CUDA itself takes is a flat figure in the plan and differs by so much between drivers, models and GPUs.
SLACK = 512 * MIB


@dataclass(frozen=True)
class GpuProof:
    """The outcome: nothing is proven where there is a problem. ``rows`` show each GPU; memory is in bytes."""

    problems: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


def compare(
    plan: Mapping[str, Any] | None, asked: Sequence[str], gpus_now: Sequence[Gpu], own_pids: frozenset[int]
) -> GpuProof:
    """Compare what NVML shows with what was planned.

    ``plan`` is what the instance's record has as ``memory`` (None: nothing was planned, so only presence is looked at);
    ``asked`` the UUIDs in its launch; ``own_pids`` all processes below the runner, read after the GPUs, and after a
    completion, because some memory is taken only by the first request::

        gpu_proof.compare(value.get("memory"), value["launch"]["gpus"] or (), gpu.read_gpus(), gpus.pids_of(value))
    """
    needs = {need["uuid"]: need for need in (plan or {}).get("gpus", ())}
    held = {card.uuid: _held(card, own_pids) for card in gpus_now}
    wanted = [card for card in gpus_now if card.uuid in asked and needs.get(card.uuid, {}).get("need", 1)]
    problems = _absent(wanted, held) + [
        f"it is on GPU {card.index} ({card.uuid}) too, which was not asked for"
        for card in gpus_now
        if card.uuid not in asked and held[card.uuid] is not None
    ]
    missing = [uuid for uuid in asked if uuid not in held]
    problems += [f"the GPU {uuid}, which was asked for, does not answer any more" for uuid in missing]
    if plan and not plan["adapts"]:
        problems += [
            sentence
            for card in wanted
            for sentence in _amount(card, held[card.uuid], needs.get(card.uuid), plan["source"])
        ]
    rows = tuple(
        {
            "gpu": card.index,
            "uuid": card.uuid,
            "asked": card.uuid in asked,
            "planned": needs.get(card.uuid, {}).get("need"),
            "held": held[card.uuid],
        }
        for card in gpus_now
        if card.uuid in asked or held[card.uuid] is not None
    )
    return GpuProof(tuple(problems), rows)


def _held(card: Gpu, own_pids: frozenset[int]) -> int | None:
    """Bytes that our processes hold on the GPU; None where none of them is on it."""
    ours = [found.memory for found in card.processes if found.pid in own_pids]
    return sum(memory or 0 for memory in ours) if ours else None


def _absent(wanted: Sequence[Gpu], held: Mapping[str, int | None]) -> list[str]:
    gone = [str(card.index) for card in wanted if held[card.uuid] is None]
    if not gone:
        return []
    if len(gone) == len(wanted):
        return [f"it runs on the CPU: no process of it is on GPU {', '.join(gone)}"]
    return [f"no process of it is on GPU {', '.join(gone)}, which it was given"]


def _amount(card: Gpu, held: int | None, need: Mapping[str, Any] | None, source: str) -> list[str]:
    # NVML does not tell the memory of a process to everybody, and then says nothing at all.
    if not held or need is None:
        return []
    allowed = max(SLACK, int(need["need"] * TOLERANCE[source]))
    if abs(held - need["need"]) <= allowed:
        return []
    return [
        f"it holds {held // MIB} MiB on GPU {card.index}, and {need['need'] // MIB} MiB were planned ({source}); more "
        f"than {allowed // MIB} MiB apart, it does not run as it was asked to"
    ]
