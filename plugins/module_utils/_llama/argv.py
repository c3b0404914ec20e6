# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read options out of llama-server's arguments, in any of their spellings. Pure.

Private to gpufleet.llamacpp; may change at any time. Spellings: llama.cpp common/arg.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence


def spelled(argument: str) -> str:
    """The option as llama-server reads it: in a long option an underscore is a dash."""
    return argument.replace("_", "-") if argument.startswith("--") else argument


def value_of(arguments: Sequence[str], *names: str) -> str | None:
    """The value of the option with these spellings, or None. Of several the last one counts, as for llama-server."""
    found = None
    for option, value in zip(arguments, arguments[1:]):
        if spelled(option) in names:
            found = value
    return found


def flag(arguments: Sequence[str], on: Sequence[str], off: Sequence[str] = ()) -> bool | None:
    """Whether a flag is on; None where it is not given. Of several the last one counts."""
    found = None
    for argument in arguments:
        if spelled(argument) in on:
            found = True
        elif spelled(argument) in off:
            found = False
    return found


def number(text: str | None) -> int | None:
    """The number, or None for anything else."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
