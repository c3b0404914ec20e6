# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of one known cause of a failed start.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Where an operator finds the command. A unit test compares it with what _spec/run_sh.py renders.
COMMAND = "the command is in the comment at the top of run.sh in the instance's folder"


@dataclass(frozen=True)
class Cause:
    """One cause: the patterns that show it in a log, and templates for what the operator reads.

    ``text`` says what was found and has no final period. Its values are groups that every pattern has, or ``image`` and
    ``gpu``, which are always known. ``detail`` follows the text after a colon; it is left out where one of its values
    is unknown. ``remedy`` says what to do, in whole sentences, and has no values.

    Values: the groups of the pattern (``file`` becomes a path of the host), and what diagnosis.py knows about the host:
    ``image``, ``gpu``, ``gpu_free``, ``memory_free``, ``port_owner`` and ``xid``.
    """

    name: str
    patterns: tuple[re.Pattern[str], ...]
    text: str
    detail: str
    remedy: str

    def match(self, line: str) -> re.Match[str] | None:
        """The first match of a pattern in this line of a log."""
        for pattern in self.patterns:
            found = pattern.search(line)
            if found:
                return found
        return None

    def filled(self, values: Mapping[str, str]) -> str:
        """The text with these values, and the detail if all of its values are known."""
        text = self.text.format_map(values)
        try:
            detail = self.detail.format_map(values)
        except KeyError:
            detail = ""
        return f"{text}: {detail}" if detail else text


def cause(name: str, *patterns: str, text: str, detail: str = "", remedy: str) -> Cause:
    """A cause in the tables of this folder. One without a pattern is found by other means than the log."""
    return Cause(name, tuple(re.compile(pattern) for pattern in patterns), text, detail, remedy)
