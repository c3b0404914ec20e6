# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of the instances of many hosts, as a table for a terminal.

Private to gpufleet.llamacpp; may change at any time. The rows are the instances that llamacpp_instance_info returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._table import GAP, line, wrap

COLUMNS = ("HOST", "INSTANCE", "STATE", "UP", "MODEL", "CTX", "TOK/S", "RELEASE")
# Columns that shrink on a narrow terminal, in this order, and their least width.
SHRINK = (("MODEL", 8), ("HOST", 8), ("INSTANCE", 8))
GIB = 1 << 30


def table(hosts: Mapping[str, Mapping[str, Any]], width: int = 80) -> list[str]:
    """The lines of the table, if possible none longer than ``width`` characters.

    ``hosts``: by name, ``{"instances": [...]}`` or ``{"problem": text}``.
    """
    rows = [((host, *_cells(one)), _details(one)) for host, found in sorted(hosts.items()) for one in _instances(found)]
    widths = _widths([cells for cells, dummy in rows], width)
    lines = [line(COLUMNS, widths)]
    for cells, details in rows:
        lines.append(line(cells, widths))
        for detail in details:
            lines += wrap(f"  {detail}", width)
    for host, found in sorted(hosts.items()):
        if not _instances(found):
            lines += wrap(f"{host}  {found.get('problem') or 'no instance'}", width)
    return lines


def short_time(seconds: float | None) -> str:
    """A time that fits a column: 42s, 17m, 5h, 3d."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in short: 0-3, or 0,2-3."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _instances(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return found.get("instances") or ()


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """One instance's cells after the host's."""
    model, release = one.get("model") or {}, one.get("release") or {}
    rate = (release.get("completion") or {}).get("tokens_per_second")
    # The quantization comes first, because a narrow column cuts the end.
    name = " ".join(str(model[key]) for key in ("quantization", "name") if model.get(key))
    return (
        str(one.get("name")),
        _state(one),
        short_time(one.get("uptime")),
        name or "-",
        str(one.get("context_size") or "-"),
        f"{rate:.0f}" if rate else "-",
        str(release.get("proven") or "-")[:10],
    )


def _state(one: Mapping[str, Any]) -> str:
    """The state, and the health if it adds something."""
    state, health = str(one.get("state")), one.get("health")
    return state if health in (None, "ok") or state == "stopped" else f"{state}, {health}"


def _details(one: Mapping[str, Any]) -> list[str]:
    """The lines below an instance: its memory on the GPUs, its problem, and its drift."""
    held = one.get("gpu_memory") or []
    found = []
    if held:
        each = "  ".join(f"{gpu['memory'] / GIB:.1f}" for gpu in held)
        total = max(gpu["total"] for gpu in held) / GIB
        found.append(f"GPU {ranges([gpu['index'] for gpu in held])}: {each} GiB, of {total:.0f} each")
    elif one.get("gpus") and one.get("pid"):
        found.append(f"GPU {', '.join(map(str, one['gpus']))}: NVML shows none of its memory there")
    if one.get("problem"):
        found.append(str(one["problem"]))
    return found + [f"drift: {text}" for text in one.get("drift") or []]


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The widths of the columns, shrunk until a row fits."""
    widths = [max(len(cells[column]) for cells in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for name, least in SHRINK:
        column = COLUMNS.index(name)
        over = sum(widths) + GAP * (len(widths) - 1) - width
        if over > 0:
            widths[column] = max(min(least, widths[column]), widths[column] - over)
    return widths
