# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU memory that servers to be started need, as a table for a terminal.

Private to gpufleet.llamacpp; may change at any time. The rows are the ``memory`` of llamacpp_plan, in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._table import GAP

GIB = 1 << 30


def table(hosts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A block for each host with servers to start: what each needs on each GPU, what is free now, what remains."""
    lines: list[str] = []
    for host, rows in hosts.items():
        if rows:
            lines += _block(host, rows)
    return lines


def _block(host: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    by_gpu: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_gpu.setdefault(row["gpu"], []).append(row)
    gpus = sorted(by_gpu)
    names = list(dict.fromkeys(row["instance"] for row in rows))
    body = [
        (name, {gpu: sum(row["need"] for row in by_gpu[gpu] if row["instance"] == name) for gpu in gpus})
        for name in names
    ]
    # The row of the last instance counts all the others, so its "left" is what remains in the end.
    left = {gpu: by_gpu[gpu][-1]["left"] for gpu in gpus}
    free = {gpu: by_gpu[gpu][0]["free"] for gpu in gpus}
    back = {gpu: sum(row["given_back"] for row in by_gpu[gpu]) for gpu in gpus}
    others = {gpu: free[gpu] + back[gpu] - sum(row["need"] for row in by_gpu[gpu]) - left[gpu] for gpu in gpus}
    body += [(word, sums) for word, sums in (("reserved by others", others),) if any(sums.values())]
    body.append(("free now", free))
    body += [(word, sums) for word, sums in (("freed by stops", back),) if any(sums.values())]
    body.append(("left", left))
    head = f"{host}: GiB on GPU"
    width = max(len(head), *(len(word) + GAP for word, dummy in body))
    lines = [f"{head:{width}}" + "".join(f"{gpu:>{5 + GAP}}" for gpu in gpus)]
    for word, sums in body:
        lines.append(f"  {word:{width - GAP}}" + "".join(f"{sums[gpu] / GIB:>{5 + GAP}.1f}" for gpu in gpus))
    return lines
