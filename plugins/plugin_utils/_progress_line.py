# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull's progress as lines for the operator: what a line says, and when it is time for one.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A line is due after so many percent, or so many seconds.
PERCENT = 5
SECONDS = 30.0
# s; a phase that ends so soon is not worth a line.
SOON = 2.0
# What a phase is called. A download needs no name.
PHASES = {
    "look": "looking at what is there",
    "download": "",
    "verify": "verifying",
    "copy": "copying",
    "build": "Apptainer is pulling it",
}
GAP = "  "
SHORTEST_NAME = 16


def size(count: float) -> str:
    """A number of bytes for people, in decimal units: "310 MB", "12.1 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit != "GB" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """A time for people: "40 s", "4 min", "2 h 5 min"."""
    if seconds < 59.5:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(progress: Mapping[str, Any]) -> int | None:
    """How much of it is done, rounded down; None where there are no numbers."""
    done, total = progress.get("bytes"), progress.get("total")
    return int(100 * done / total) if done is not None and total else None


def line(host: str, progress: Mapping[str, Any], elapsed: float, columns: int = 79) -> str:
    """One line of at most ``columns``, unless the host's name is very long; a long name of a file is cut in the middle.

    ``progress`` as module_utils/_artifact/progress.py writes it; ``elapsed`` are the seconds in this phase.
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
        words.append(f"({size(had)} were there already)")
    name, told = str(progress["name"]), GAP.join(word for word in words if word)
    room = columns - len(f"{host}: {GAP}{told}")
    if room < min(len(name), SHORTEST_NAME) and had:
        told = told.rpartition(GAP)[0] + f"{GAP}({size(had)} resumed)"
        room = columns - len(f"{host}: {GAP}{told}")
    return f"{host}: {_cut(name, max(room, SHORTEST_NAME))}{GAP}{told}"


def _cut(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    end = (room - 3) // 2
    return f"{name[: room - 3 - end]}...{name[len(name) - end :]}"


@dataclass(frozen=True)
class Told:
    """The last line: when it was printed, of which file and phase it was, how much it said was done."""

    at: float
    name: str
    phase: str
    percent: int | None


def told(progress: Mapping[str, Any], now: float) -> Told:
    """What a line of ``progress`` tells at ``now`` (in seconds, of any clock)."""
    return Told(now, str(progress["name"]), str(progress["phase"]), percent(progress))


def is_due(last: Told | None, progress: Mapping[str, Any], now: float) -> bool:
    """Whether it is time for a line; ``last`` is None before the first, which waits until there is something to say."""
    next_ = told(progress, now)
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
