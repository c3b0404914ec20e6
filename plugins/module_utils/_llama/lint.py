# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line and the variables of an instance against the options that its image lists. Pure.

Private to gpufleet.llamacpp; may change at any time.

llama-server's own parser stops at the first mistake and takes ``4403x`` for 4403, so names and numbers are checked
here, all at once; parser.py asks it about the rest.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import help as help_text
from .argv import spelled
from .help import Option
from .options import LAYERS, LISTS, OFF, ON, REPLACED

LOOKS_LIKE_OPTION = re.compile(r"--?[A-Za-z]")
# What editors make of two dashes.
LONG_DASHES = ("\u2012", "\u2013", "\u2014", "\u2212")
WHOLE = re.compile(r"[+-]?\d+")
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# --help prints N for whole numbers and others, and a default with a point for the others: "(default: 0.80)".
WHOLE_DEFAULT = re.compile(r"default: -?\d+(?![.\d])")
DECIMAL_DEFAULT = re.compile(r"default: -?\d+\.\d+(?![.\d])")
# The placeholder of one number; a list of numbers has commas.
NUMBER_HINT = re.compile(r"[A-Z]+")
REMOVED = "the argument has been removed."
# How alike two names have to be, of 1, for one to be meant by the other.
NEAR = 0.7
PREFIX, NEGATED = "LLAMA_ARG_", "LLAMA_ARG_NO_"


@dataclass(frozen=True)
class Use:
    """One option as it stands on the command line, with the words behind it that are its values."""

    option: Option
    word: str
    values: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """It as it stands there."""
        return (self.word, *self.values)


@dataclass
class Checked:
    """What was found; ``sound`` and all but ``wrong_env`` is what is left for llama-server's own parser."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sound: list[Use] = field(default_factory=list)
    wrong_env: list[str] = field(default_factory=list)


def check(words: Sequence[str], env: Mapping[str, str], options: Sequence[Option], owned: Mapping[str, str]) -> Checked:
    """Check llama-server's arguments ``words`` and its variables against the options of its build.

    ``owned``: llama-server's spellings that an option of the module stands for, each with that option.
    """
    known = help_text.by_name(options)
    checked = Checked()
    uses = _uses(words, known, checked, owned)
    checked.warnings += [
        f"args: {use.word} is deprecated and does nothing any more. Take it out."
        for use in uses
        if "DEPRECATED" in use.option.about
    ]
    checked.warnings += _repeated(uses)
    _variables(env, options, uses, checked, owned)
    return checked


def _uses(words: Sequence[str], known: Mapping[str, Option], checked: Checked, owned: Mapping[str, str]) -> list[Use]:
    """The command line, option by option; what is none, or lacks its value, or has a wrong one, is a problem."""
    uses: list[Use] = []
    before: str | None = None  # None: the option before is not known, and so whether it takes values
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        option = known.get(spelled(word))
        if option is None and LOOKS_LIKE_OPTION.match(word):
            checked.problems.append(f"args: {_unknown(word, known, owned)}")
            before = None
        elif word.startswith(LONG_DASHES):
            checked.problems.append(f"args: {word!r} begins with a long dash. Write {'--' + word[1:]!r}.")
            before = None
        elif option is None:
            if before is not None:
                takes = _takes(known[before])
                checked.problems.append(f"args: {word!r} is no option, and {before} before it takes {takes}.")
        else:
            values = tuple(words[place : place + option.values])
            follows = [value for value in values if spelled(value) in known]
            if follows or len(values) < option.values:
                what = f"and {follows[0]} follows" if follows else "and nothing follows"
                checked.problems.append(f"args: {word} needs a value, {_form(option)}, {what}. Write '{word} VALUE'.")
                before = None
            else:
                use = Use(option, word, values)
                wrong = _wrong(use)
                uses.append(use)
                if wrong:
                    checked.problems.append(f"args: {wrong}")
                else:
                    checked.sound.append(use)
                before = spelled(word)
                place += option.values
    return uses


def as_they_stand(words: Sequence[str]) -> list[Use]:
    """The command line of a build whose help cannot be read: an option ends where the next one begins."""
    uses: list[Use] = []
    for word in words:
        if LOOKS_LIKE_OPTION.match(word) or not uses:
            uses.append(Use(Option((spelled(word),)), word, ()))
        else:
            uses[-1] = Use(uses[-1].option, uses[-1].word, (*uses[-1].values, word))
    return uses


def _takes(option: Option) -> str:
    if option.values == 0:
        return "no value. Take it out"
    return f"{('one value', 'two values')[option.values - 1]}. Take it out, or write its option before it"


def _unknown(word: str, known: Mapping[str, Option], owned: Mapping[str, str]) -> str:
    """What is said of an option that this build does not have."""
    name = spelled(word)
    instead = REPLACED.get(name)
    if instead and instead.split()[0] in known:
        return f"{word} is gone from this build of llama-server. Write '{instead}' instead."
    return f"unknown option {word}{_meant(name, known, owned)}"


def _meant(name: str, known: Mapping[str, Option], owned: Mapping[str, str]) -> str:
    bare = {other.lstrip("-"): other for other in known}
    near = bare.get(name.lstrip("-")) or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=NEAR)), None)
    if near is None:
        return ". The llama-server of this image has none that is like it; its --help lists what it has."
    return f", did you mean {near}?{_own_option(near, owned)}"


def _own_option(name: str, owned: Mapping[str, str]) -> str:
    return f" That is the option {owned[name]} of this module. Set it there." if name in owned else ""


def _wrong(use: Use) -> str | None:
    if use.option.about.startswith(REMOVED):
        return f"{use.word} is gone from this build of llama-server:{use.option.about[len(REMOVED) :]}."
    expected = _expected(use.option, use.values[0]) if use.option.values == 1 else None
    return expected and f"{use.word} {use.values[0]!r} is not possible: it takes {expected}."


def _expected(option: Option, value: str) -> str | None:
    """What the option takes, in words, where the value is something else; None where it may be right."""
    names, hint = set(option.names), option.hint
    if names & LAYERS:
        return None if value in ("auto", "all") or WHOLE.fullmatch(value) else "a whole number, auto or all"
    if option.choices:
        switch = {*ON, *OFF} if {"on", "off"} <= set(option.choices) else set()
        return None if value in {*option.choices, *switch} else f"one of {', '.join(option.choices)}"
    limits = re.fullmatch(r"<(\d+)\.\.\.(\d+)>", hint)
    if limits:
        low, high = map(int, limits.groups())
        return None if WHOLE.fullmatch(value) and low <= int(value) <= high else f"a whole number from {low} to {high}"
    if not NUMBER_HINT.fullmatch(hint):
        return None
    if WHOLE_DEFAULT.search(option.about):
        highest = 2**32 - 1 if "--seed" in names else 2**31 - 1
        if not WHOLE.fullmatch(value):
            return "a whole number"
        return None if -(2**31) <= int(value) <= highest else f"a whole number up to {highest}"
    if hint == "N" or DECIMAL_DEFAULT.search(option.about):
        return None if DECIMAL.fullmatch(value) and math.isfinite(float(value)) else "a number, such as 1 or 0.5"
    return None


def _form(option: Option) -> str:
    """The option's value as the help describes it."""
    return f"{option.hint} ({option.about})" if option.about else option.hint


def _repeated(uses: Sequence[Use]) -> list[str]:
    """Options that are said more than once, under whatever name; but for lists the last one counts."""
    said: dict[tuple[str, ...], list[Use]] = {}
    for use in uses:
        if not LISTS & set(use.option.names):
            said.setdefault(use.option.names, []).append(use)
    return [
        f"args: {' and '.join(repr(' '.join(use.words)) for use in group)} are one option. The last one counts; take "
        "the others out."
        for group in said.values()
        if len(group) > 1
    ]


def _variables(
    env: Mapping[str, str],
    options: Sequence[Option],
    uses: Sequence[Use],
    checked: Checked,
    owned: Mapping[str, str],
) -> None:
    """LLAMA_ARG_*, read before the command line; one that llama-server does not know it ignores in silence."""
    by_env = {option.env: option for option in options if option.env}
    for name, value in env.items():
        if not name.startswith(PREFIX):
            continue
        positive = by_env.get(PREFIX + name[len(NEGATED) :]) if name.startswith(NEGATED) else None
        option = by_env.get(name) or positive
        if option is None:
            checked.problems.append(f"env: {_unknown_variable(name, by_env, owned)}")
            checked.wrong_env.append(name)
            continue
        negates = name not in by_env
        wrong = _wrong_variable(name, value, option, negates)
        if wrong:
            checked.problems.append(f"env: {wrong}")
            checked.wrong_env.append(name)
            continue
        rival = next((use for use in uses if use.option is option), None)
        if rival:
            checked.warnings.append(
                f"env: {name}={value} has no effect, because {' '.join(rival.words)} is on the command line. Take one "
                "of them out."
            )


def _unknown_variable(name: str, by_env: Mapping[str, Option], owned: Mapping[str, str]) -> str:
    instead = REPLACED.get(name)
    if instead:
        return f"{name} is gone from this build of llama-server. Write '{instead}' into args instead."
    near = next(iter(difflib.get_close_matches(name, by_env, n=1, cutoff=NEAR)), None)
    if near is None:
        return f"unknown variable {name}, which llama-server would ignore. Say it in args, by the option's name."
    return f"unknown variable {name}, did you mean {near}?{_own_option(near, owned)}"


def _wrong_variable(name: str, value: str, option: Option, negates: bool) -> str | None:
    if negates:
        if value in ON:
            return None
        return (
            f"{name}={value} means the same as {name}=1, because llama-server only looks whether it is there. Take it "
            f"out, or write {name}=1."
        )
    if option.values == 0:
        # Of a plain flag it takes any other word for off, and says nothing.
        return None if value in (*ON, *OFF) else f"{name}={value} is not possible: it takes on or off, in lower case."
    expected = _expected(option, value) if option.values == 1 else None
    return expected and f"{name}={value} is not possible: it takes {expected}."
