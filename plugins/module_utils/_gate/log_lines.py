# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a server's log that show why it failed. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# llama-server's log line is "0.00.123.456 E text" (llama.cpp common/log.cpp). Its argument parser and the container
# runtime print no time and no level.
ERROR_LINE = re.compile(
    r"^\S*\s?\d+\.\d\d\.\d{3}\.\d{3} E |^(error|FATAL|ERROR|terminate called)\b|: error\b", re.IGNORECASE
)
TIME_AND_LEVEL = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z]\s+")
# Apptainer colours its messages.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHOWN = 5
WIDTH = 300


def this_start(lines: Sequence[str], mark: str) -> list[str]:
    """The lines since the runner last logged the mark of a start; all lines if there is no mark."""
    for number in range(len(lines) - 1, -1, -1):
        if mark in lines[number]:
            return list(lines[number:])
    return list(lines)


def plain(line: str) -> str:
    """The line without colours."""
    return COLOUR.sub("", line).strip()


def message(line: str) -> str:
    """The line without colours, time and level."""
    return TIME_AND_LEVEL.sub("", plain(line))


def errors(lines: Sequence[str]) -> list[str]:
    """The first messages that report an error, each once.

    The first, because the last ones are consequences, and the logger can lose them. Once, because llama-server reports
    the same error when it fits the model and when it loads it.
    """
    found = [message(line) for line in lines if ERROR_LINE.search(plain(line))]
    return list(dict.fromkeys(found))[:SHOWN]
