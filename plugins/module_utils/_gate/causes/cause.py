# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cause of a failed start: what the log says, in which words to say it, and what to do.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One cause. ``pattern`` is searched in every line; its groups fill ``says``. says and remedy are sentences."""

    name: str
    pattern: re.Pattern[str]
    says: str
    remedy: str


def cause(name: str, pattern: str, says: str, remedy: str) -> Cause:
    """A cause that the log tells."""
    return Cause(name, re.compile(pattern), says, remedy)
