# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of many hosts as a table for a terminal.

Private to gpufleet.llamacpp; may change at any time. The rows are what llamacpp_instance_info returns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("HOST", "INSTANCE", "STATE", "UP", "MODEL", "CTX", "TOK/S", "RELEASE")
# Columns that give way, in this order, where the terminal is narrow, and to how many characters.
GIVE_WAY = (("MODEL", 8), ("HOST", 8), ("INSTANCE", 8))
GAP = 2
GIB = 1 << 30


def table(hosts: Mapping[str, Mapping[str, Any]], width: int = 80) -> list[str]:
    """The lines of the table, none longer than ``width`` characters where that can be had.

    ``hosts`` maps a host's name to ``{"instances": [...]}`` as the module gives it, or to ``{"problem": text}``.
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
    """Numbers as a person writes them: 0-3, or 0,2-3."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _instances(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return found.get("instances") or ()


def wrap(text: str, width: int) -> list[str]:
    """A sentence over as many lines as it takes, the later ones indented; a path stays one word."""
    return textwrap.wrap(
        text,
        max(width, 40),
        subsequent_indent="    ",
        replace_whitespace=False,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """One instance's cells after the host's."""
    model, release = one.get("model") or {}, one.get("release") or {}
    rate = (release.get("completion") or {}).get("tokens_per_second")
    # The quantization first, since the end is what gives way.
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
    """The state, and the health where that says more."""
    state, health = str(one.get("state")), one.get("health")
    return state if health in (None, "ok") or state == "stopped" else f"{state}, {health}"


def _details(one: Mapping[str, Any]) -> list[str]:
    """What stands below an instance's line: its memory on the GPUs, what is wrong, and where it drifts."""
    held = one.get("gpu_memory") or []
    found = []
    if held:
        each = "  ".join(f"{gpu['memory'] / GIB:.1f}" for gpu in held)
        total = max(gpu["total"] for gpu in held) / GIB
        found.append(f"GPU {ranges([gpu['index'] for gpu in held])}: {each} GiB, of {total:.0f} each")
    elif one.get("gpus") and one.get("pid"):
        found.append(f"GPU {', '.join(map(str, one['gpus']))}: none of its memory is there, by NVML's account")
    if one.get("problem"):
        found.append(str(one["problem"]))
    return found + [f"drift: {text}" for text in one.get("drift") or []]


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns' widths; the widest ones give way until the line fits."""
    widths = [max(len(cells[column]) for cells in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for name, least in GIVE_WAY:
        column = COLUMNS.index(name)
        over = sum(widths) + GAP * (len(widths) - 1) - width
        if over > 0:
            widths[column] = max(min(least, widths[column]), widths[column] - over)
    return widths


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line; a text that is too long is cut and says so."""
    shown = [text if len(text) <= size else f"{text[: size - 1]}…" for text, size in zip(cells, widths)]
    return (" " * GAP).join(text.ljust(size) for text, size in zip(shown, widths)).rstrip()
