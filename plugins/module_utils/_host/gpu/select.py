# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs of the host an operator's list of indexes and UUIDs means.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from .read import Gpu


def resolve(wanted: Sequence[str], gpus: Sequence[Gpu]) -> tuple[list[Gpu], list[str]]:
    """The GPUs wanted, in PCI order, and every problem in words; use the GPUs only when there is no problem.

    Each of wanted is an index in PCI order ("0") or a UUID or its beginning ("GPU-8932f937"), in any case.
    """
    found: dict[int, str] = {}
    problems = []
    for want in (str(item).strip() for item in wanted):
        matches = [gpu for gpu in gpus if _means(want, gpu)]
        if len(matches) != 1:
            problems.append(_not_one(want, matches, gpus))
            continue
        gpu = matches[0]
        if gpu.index in found:
            problems.append(
                f'GPU {gpu.index} is listed twice, as "{found[gpu.index]}" and as "{want}": name each GPU once.'
            )
        elif gpu.error:
            problems.append(gpu.error)
        found.setdefault(gpu.index, want)
    return [gpu for gpu in gpus if gpu.index in found], problems


def _means(want: str, gpu: Gpu) -> bool:
    if want.isdecimal():
        return gpu.index == int(want)
    # "GPU-" alone begins every UUID and would pick the only GPU of a host by accident.
    return len(want) > len("GPU-") and bool(gpu.uuid) and gpu.uuid.lower().startswith(want.lower())


def _not_one(want: str, matches: Sequence[Gpu], gpus: Sequence[Gpu]) -> str:
    if matches:
        uuids = ", ".join(gpu.uuid for gpu in matches)
        return (
            f'"{want}" is the beginning of {len(matches)} GPUs\' UUIDs ({uuids}): write more of the one that is meant.'
        )
    if want.upper().startswith("MIG-"):
        return f'"{want}" is a MIG instance; whole GPUs are used. Name a GPU by its index or its UUID (GPU-...).'
    if not gpus:
        return f'There is no GPU "{want}": this host has none.'
    known = ", ".join(f"{gpu.index} ({gpu.uuid or 'UUID unknown'})" for gpu in gpus)
    if want.isdecimal():
        return f'There is no GPU "{want}": this host has {known}.'
    if not want.upper().startswith("GPU-"):
        return f'"{want}" is neither an index nor a UUID (GPU-...) of a GPU: this host has {known}.'
    silent = " ".join(f"It may be the one that does not answer: {gpu.error}" for gpu in gpus if not gpu.uuid)
    return f'There is no GPU "{want}": this host has {known}.' + (f" {silent}" if silent else "")
