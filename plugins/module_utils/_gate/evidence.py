# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log says about a server that failed: the lines that tell why.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# llama-server's log line: "0.00.123.456 E text" (llama.cpp common/log.cpp), or what the argument parser and the
# container runtime print without a level.
ERROR_LINE = re.compile(
    r"^\S*\s?\d+\.\d\d\.\d{3}\.\d{3} E |^(error|FATAL|ERROR|terminate called)\b|: error\b", re.IGNORECASE
)
SHOWN = 5


def this_start(lines: Sequence[str], mark: str) -> list[str]:
    """The lines since the runner's last mark of a start; all of them where there is no mark."""
    for number in range(len(lines) - 1, -1, -1):
        if mark in lines[number]:
            return list(lines[number:])
    return list(lines)


def error_lines(lines: Sequence[str]) -> list[str]:
    """The first lines that report an error: the last ones are consequences, and the logger can lose them.

    Each is given once: llama-server reports the same error in its fitting pass and in the real load.
    """
    found: dict[str, None] = {}
    for line in lines:
        if ERROR_LINE.search(line):
            text = re.sub(r"^\d+\.\d\d\.\d{3}\.\d{3} E\s+", "", line.strip())
            found.setdefault(text, None)
    return list(found)[:SHOWN]


def explain(reason: str, lines: Sequence[str]) -> str:
    """One message: what happened, and the log lines that say why."""
    telling = error_lines(lines) or [line for line in lines if line.strip()][-SHOWN:]
    if not telling:
        return f"{reason}. Its log is empty."
    shown = "\n".join(f"    {line[:300]}" for line in telling)
    return f"{reason}. The log says:\n{shown}"
