# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that ``llama-server --help`` lists, read from its text. Pure.

Private to gpufleet.llamacpp; may change at any time. Layout: llama.cpp common/arg.cpp (common_arg::to_string).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .._artifact.image.inspect import option_head

# Characters of a description that are kept; some are pages long.
ABOUT = 240
NAME = r"--?[A-Za-z][\w.-]*"
NAMES = re.compile(rf"({NAME}(?:, *{NAME})*) *(.*)")
ENV = re.compile(r"\(env: (\w+)\)")
# {none,layer,row}, [on|off|auto], <0|1>
CHOICES = re.compile(r"\{([\w,+-]+)\}|\[(\w+(?:\|\w+)+)\]|<(\w+(?:\|\w+)+)>")
ALLOWED = re.compile(r"allowed values: ([\w-]+(?:, [\w-]+)*)")
# Some descriptions have a line for each value, though not always for all of them.
TERM = re.compile(r"^ +- ([\w+-]+)(?: \([a-z]+\))?:", re.MULTILINE)


@dataclass(frozen=True)
class ServerOption:
    """One option with all its names. hint: the help's placeholder for the value, '' where the option takes none.

    choices: all values, where the help lists them; terms: the values that the help explains.
    """

    names: tuple[str, ...]
    hint: str = ""
    about: str = ""
    env: str = ""
    choices: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()

    @property
    def values(self) -> int:
        """The number of words that follow it."""
        if not self.hint:
            return 0
        return 2 if re.fullmatch(r"[A-Z]+ [A-Z]+", self.hint) else 1


def parse(text: str) -> tuple[ServerOption, ...]:
    """Every option in the text, in its order; empty for a text of another layout."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        head = option_head(line)
        if head:
            found.append((head, [line[len(head) :]]))
        elif found and line.startswith(" "):
            found[-1][1].append(line)
    return tuple(option for option in (_option(head, lines) for head, lines in found) if option)


def _option(head: str, lines: Sequence[str]) -> ServerOption | None:
    match = NAMES.fullmatch(head.strip())
    if match is None:
        return None
    about = " ".join(" ".join(lines).split())
    env = ENV.search(about)
    names = tuple(name.strip() for name in match[1].split(","))
    terms = tuple(TERM.findall("\n".join(lines)))
    shown = ENV.sub("", about).strip()
    shown = shown if len(shown) <= ABOUT else shown[:ABOUT].rpartition(" ")[0] + " ..."
    return ServerOption(names, match[2], shown, env[1] if env else "", _choices(match[2], about), terms)


def _choices(hint: str, about: str) -> tuple[str, ...]:
    match = CHOICES.fullmatch(hint)
    if match:
        return tuple(re.split("[,|]", next(filter(None, match.groups()))))
    allowed = ALLOWED.search(about)
    return tuple(allowed[1].split(", ")) if allowed else ()


def by_name(options: Sequence[ServerOption]) -> dict[str, ServerOption]:
    """Each option under each of its names."""
    return {name: option for option in options for name in option.names}
