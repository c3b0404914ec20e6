# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a fetch as lines for the operator: what a line says, and when the next one is due.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A new line is due after this many percent, or this many seconds.
PERCENT = 5
SECONDS = 30.0
# A phase that ends within this many seconds gets no line.
SOON = 2.0
# The words for a phase. A download needs none.
PHASES = {
    "look": "checking existing files",
    "download": "",
    "verify": "verifying",
    "copy": "copying",
    "build": "pulling with Apptainer",
}
GAP = "  "
SHORTEST_NAME = 16


def size(count: float) -> str:
    """A number of bytes in decimal units: "310 MB", "12.1 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit != "GB" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """A time in words: "40 s", "4 min", "2 h 5 min"."""
    if seconds < 59.5:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(progress: Mapping[str, Any]) -> int | None:
    """How much is done, rounded down; None without numbers."""
    done, total = progress.get("bytes"), progress.get("total")
    return int(100 * done / total) if done is not None and total else None


def line(host: str, progress: Mapping[str, Any], elapsed: float, columns: int = 79) -> str:
    """One line of at most ``columns``, unless the host's name is very long. A long file name is cut in the middle.

    ``progress``: as module_utils/_fetch/progress.py writes it. ``elapsed``: seconds in this phase.
    """
    words = [f"{progress['file']} of {progress['files']}"] if progress.get("files", 1) > 1 else []
    words += [PHASES.get(progress["phase"], progress["phase"])]
    part, rate, eta, had = (percent(progress), progress.get("rate"), progress.get("eta"), progress.get("resumed"))
    if part is not None:
        words.append(f"{part} %")
    elif progress.get("bytes") is not None:
        words.append(size(progress["bytes"]))
    else:
        words.append(f"for {span(elapsed)}")
    if rate:
        words.append(f"{size(rate)}/s")
    if eta is not None:
        words.append(f"{span(eta)} left")
    if had and progress["phase"] == "download":
        words.append(f"({size(had)} resumed)")
    name, text = str(progress["name"]), GAP.join(word for word in words if word)
    room = columns - len(f"{host}: {GAP}{text}")
    return f"{host}: {_cut(name, max(room, SHORTEST_NAME))}{GAP}{text}"


def _cut(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    end = (room - 3) // 2
    return f"{name[: room - 3 - end]}...{name[len(name) - end :]}"


@dataclass(frozen=True)
class Shown:
    """What the last line showed, and when it was printed."""

    at: float
    phase: str
    percent: int | None


def shown(progress: Mapping[str, Any], now: float) -> Shown:
    """What a line of ``progress`` shows at ``now`` (in seconds, of any clock)."""
    return Shown(now, str(progress["phase"]), percent(progress))


def is_due(last: Shown | None, progress: Mapping[str, Any], now: float) -> bool:
    """Whether a line is due. ``last`` is None before the first line, which waits for a rate or a phase without one."""
    next_ = shown(progress, now)
    if last is None:
        return bool(progress.get("rate")) or next_.phase in ("copy", "build")
    if now - last.at >= SECONDS:
        return True
    if next_.phase != last.phase:
        eta = progress.get("eta")
        return eta is None or eta > SOON
    if next_.percent is None or last.percent is None:
        return False
    return next_.percent >= last.percent + PERCENT or next_.percent < last.percent
