# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs that an operator's list of indexes and UUIDs selects.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..._result import Problem
from .read import Gpu


def resolve(wanted: Sequence[str], gpus: Sequence[Gpu]) -> tuple[list[Gpu], list[Problem]]:
    """The selected GPUs in PCI order, and every problem. Use the GPUs only if there is no problem.

    An entry of ``wanted`` is an index in PCI order ("0"), or a UUID or its beginning ("GPU-8932f937"), in any case.
    """
    found: dict[int, str] = {}
    problems = []
    for want in (str(item).strip() for item in wanted):
        matches = [gpu for gpu in gpus if _matches(want, gpu)]
        if len(matches) != 1:
            problems.append(_not_one(want, matches, gpus))
            continue
        gpu = matches[0]
        if gpu.index in found:
            text = f'GPU {gpu.index} is listed twice, as "{found[gpu.index]}" and as "{want}"'
            problems.append(Problem("", text, "Name each GPU once."))
        elif gpu.error:
            problems.append(gpu.error)
        found.setdefault(gpu.index, want)
    return [gpu for gpu in gpus if gpu.index in found], problems


def _matches(want: str, gpu: Gpu) -> bool:
    if want.isdecimal():
        return gpu.index == int(want)
    # "GPU-" alone begins every UUID, and would by accident select the only GPU of a host.
    return len(want) > len("GPU-") and bool(gpu.uuid) and gpu.uuid.lower().startswith(want.lower())


def _not_one(want: str, matches: Sequence[Gpu], gpus: Sequence[Gpu]) -> Problem:
    if matches:
        uuids = ", ".join(gpu.uuid for gpu in matches)
        text = f'"{want}" is the beginning of {len(matches)} GPUs\' UUIDs ({uuids})'
        return Problem("", text, "Write more of the UUID.")
    if want.upper().startswith("MIG-"):
        return Problem("", f'"{want}" is a MIG instance', "Name a whole GPU by its index or its UUID (GPU-...).")
    if not gpus:
        return Problem("", f'There is no GPU "{want}": this host has none')
    known = ", ".join(f"{gpu.index} ({gpu.uuid or 'UUID unknown'})" for gpu in gpus)
    if not want.isdecimal() and not want.upper().startswith("GPU-"):
        return Problem("", f'"{want}" is neither an index nor a UUID (GPU-...) of a GPU: this host has {known}')
    silent = [] if want.isdecimal() else [gpu.error for gpu in gpus if gpu.error and not gpu.uuid]
    hints = " ".join(f"It may be the one that does not answer: {error}" for error in silent)
    return Problem("", f'There is no GPU "{want}": this host has {known}', hints)
