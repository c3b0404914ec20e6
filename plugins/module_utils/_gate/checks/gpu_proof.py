# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the server uses the GPUs that it was given, and no other, as NVML shows.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._host.gpu.read import Gpu
from ..._result import Problem
from ..client import NotProven
from ..server import Server

MIB = 1 << 20
# How much the memory in use may differ from the plan, by the source of the plan.
TOLERANCE = {"llama-fit-params": 0.15, "estimate": 0.5}
# CUDA's own memory is a fixed amount in the plan, and differs by this much between drivers, models and GPUs.
SLACK = 512 * MIB


@dataclass(frozen=True)
class GpuProof:
    """What NVML shows: the problems, and a row for each GPU with memory in bytes."""

    problems: tuple[Problem, ...]
    rows: tuple[dict[str, Any], ...]


def check(server: Server) -> dict[str, Any]:
    """Ask for the problems now, after the model has worked: some memory is allocated by the first request."""
    problems = server.gpu_problems()
    if problems:
        raise NotProven(*problems)
    return {}


def compare(
    plan: Mapping[str, Any] | None, asked: Sequence[str], gpus_now: Sequence[Gpu], own_pids: frozenset[int]
) -> GpuProof:
    """Compare what NVML shows with what was planned.

    ``plan``: ``memory`` of the instance's record; without it only the presence on the GPUs is compared. ``asked``: the
    UUIDs in its launch. ``own_pids``: all processes below the runner, read after the GPUs.
    """
    needs = {need["uuid"]: need for need in (plan or {}).get("gpus", ())}
    used = {card.uuid: _used(card, own_pids) for card in gpus_now}
    expected = [card for card in gpus_now if card.uuid in asked and needs.get(card.uuid, {}).get("need", 1)]
    problems = [*_unused(expected, used), *_not_asked(gpus_now, asked, used)]
    problems += [
        Problem(
            "",
            f"The GPU {uuid} of the server does not answer any more",
            "Check nvidia-smi and the kernel log for Xid. A lost GPU needs a reset or a reboot.",
        )
        for uuid in asked
        if uuid not in used
    ]
    if plan and not plan["adapts"]:
        for card in expected:
            problems += _amount(card, used[card.uuid], needs.get(card.uuid), plan["source"])
    rows = tuple(
        {
            "gpu": card.index,
            "uuid": card.uuid,
            "asked": card.uuid in asked,
            "planned": needs.get(card.uuid, {}).get("need"),
            "held": used[card.uuid],
        }
        for card in gpus_now
        if card.uuid in asked or used[card.uuid] is not None
    )
    return GpuProof(tuple(problems), rows)


def _used(card: Gpu, own_pids: frozenset[int]) -> int | None:
    """Bytes that the server's processes use on the GPU; None if none of them is on it."""
    ours = [found.memory for found in card.processes if found.pid in own_pids]
    return sum(memory or 0 for memory in ours) if ours else None


def _unused(expected: Sequence[Gpu], used: Mapping[str, int | None]) -> list[Problem]:
    unused = [str(card.index) for card in expected if used[card.uuid] is None]
    if not unused:
        return []
    shown = ", ".join(unused)
    if len(unused) == len(expected):
        return [
            Problem(
                "",
                f"The server runs on the CPU: none of its processes is on GPU {shown}",
                "Check that nvidia-smi works on the host, and that the image is built for CUDA.",
            )
        ]
    remedy = "Check the options in args that choose GPUs, such as --device, --tensor-split and --split-mode."
    return [Problem("", f"The server does not use GPU {shown}, which it was given", remedy)]


def _not_asked(gpus_now: Sequence[Gpu], asked: Sequence[str], used: Mapping[str, int | None]) -> list[Problem]:
    remedy = "The container sees more GPUs than it was given: check CUDA_VISIBLE_DEVICES in run.sh."
    return [
        Problem("", f"The server also uses GPU {card.index} ({card.uuid}), which it was not given", remedy)
        for card in gpus_now
        if card.uuid not in asked and used[card.uuid] is not None
    ]


def _amount(card: Gpu, used: int | None, need: Mapping[str, Any] | None, source: str) -> list[Problem]:
    # NVML shows the memory of a process only to some users; for others it is 0 here.
    if not used or need is None:
        return []
    allowed = max(SLACK, int(need["need"] * TOLERANCE[source]))
    if abs(used - need["need"]) <= allowed:
        return []
    return [
        Problem(
            "",
            f"The server uses {used // MIB} MiB on GPU {card.index}, planned are {need['need'] // MIB} MiB ({source}), "
            f"and a difference of up to {allowed // MIB} MiB is allowed",
            "It does not run with the layers or the context of its arguments: read its log, and check env for "
            "LLAMA_ARG_*.",
        )
    ]
