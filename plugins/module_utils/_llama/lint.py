# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check an instance's command line and variables against the options that its image lists. Pure.

Private to gpufleet.llamacpp; may change at any time.

llama-server's own parser stops at the first mistake and reads ``4403x`` as 4403. So names and numbers are checked
here, all at once; lint_server.py then asks the parser about the rest.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .._result import Problem
from . import help as help_text
from .argv import spelled
from .help import ServerOption
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
# How --help describes an option that this build no longer has.
REMOVED = "the argument has been removed."
# From 0 to 1: how similar two names must be for one to be suggested for the other.
SIMILAR = 0.7
PREFIX, NEGATED = "LLAMA_ARG_", "LLAMA_ARG_NO_"
VALUES = ("no value", "one value", "two values")


@dataclass(frozen=True)
class UsedOption:
    """An option on the command line, as it is spelled there, with its values."""

    option: ServerOption
    word: str
    values: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The option and its values."""
        return (self.word, *self.values)


@dataclass
class Checked:
    """The findings. llama-server's parser is then asked about ``sound``, without the variables in ``wrong_env``."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sound: list[UsedOption] = field(default_factory=list)
    wrong_env: list[str] = field(default_factory=list)

    def add(self, option: str, text: str, remedy: str) -> None:
        """Add a problem of the module's option ``option``."""
        self.problems.append(Problem(option, text, remedy))


def check_arguments(
    words: Sequence[str], env: Mapping[str, str], options: Sequence[ServerOption], owned: Mapping[str, str]
) -> Checked:
    """Check llama-server's arguments ``words`` and its variables against the options of its build.

    ``owned``: llama-server's spellings that an option of the module stands for, each with that option.
    """
    known = help_text.by_name(options)
    checked = Checked()
    uses = _parse(words, known, owned, checked)
    checked.warnings += [
        f"args: {use.word} is deprecated and has no effect. Remove it."
        for use in uses
        if "DEPRECATED" in use.option.about
    ]
    checked.warnings += _repeated(uses)
    _check_env(env, options, uses, owned, checked)
    return checked


def _parse(
    words: Sequence[str], known: Mapping[str, ServerOption], owned: Mapping[str, str], checked: Checked
) -> list[UsedOption]:
    """The options on the command line. Adds a problem for each word that is not an option or not a valid value."""
    uses: list[UsedOption] = []
    before: str | None = None  # the last option; None: it is not known, so whether it takes a value is not known
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        option = known.get(spelled(word))
        if option is None and LOOKS_LIKE_OPTION.match(word):
            checked.add("args", *_unknown_option(word, known, owned))
            before = None
        elif word.startswith(LONG_DASHES):
            checked.add("args", f"{word!r} begins with a long dash", f"Write {'--' + word[1:]!r}.")
            before = None
        elif option is None:
            if before is not None:
                takes = known[before].values
                remedy = "Remove it, or put its option in front of it." if takes else "Remove it."
                checked.add("args", f"{word!r} is not an option, and {before} takes {VALUES[takes]}", remedy)
        else:
            values = tuple(words[place : place + option.values])
            next_option = next((value for value in values if spelled(value) in known), None)
            if next_option or len(values) < option.values:
                text = f"{word} needs a value, but {next_option or 'nothing'} follows"
                checked.add("args", text, f"Write '{word} {option.hint}': {option.about or 'see --help'}.")
                before = None
            else:
                use = UsedOption(option, word, values)
                uses.append(use)
                wrong = _wrong_value(use)
                if wrong:
                    checked.add("args", *wrong)
                else:
                    checked.sound.append(use)
                before = spelled(word)
                place += option.values
    return uses


def split_options(words: Sequence[str]) -> list[UsedOption]:
    """The options on the command line of a build whose help cannot be read: each ends where the next one begins."""
    uses: list[UsedOption] = []
    for word in words:
        if LOOKS_LIKE_OPTION.match(word) or not uses:
            uses.append(UsedOption(ServerOption((spelled(word),)), word, ()))
        else:
            uses[-1] = UsedOption(uses[-1].option, uses[-1].word, (*uses[-1].values, word))
    return uses


def _unknown_option(word: str, known: Mapping[str, ServerOption], owned: Mapping[str, str]) -> tuple[str, str]:
    """Text and remedy for an option that this build does not have."""
    name = spelled(word)
    instead = REPLACED.get(name)
    if instead and instead.split()[0] in known:
        return f"{word} was removed from this build of llama-server", f"Use '{instead}'."
    bare = {other.lstrip("-"): other for other in known}
    near = bare.get(name.lstrip("-")) or _similar(name, known)
    if near:
        return f"unknown option {word}", _suggestion(near, owned)
    return f"unknown option {word}, and this image's llama-server has no similar one", "Its --help lists all options."


def _similar(name: str, names: Mapping[str, ServerOption]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=SIMILAR)), None)


def _suggestion(name: str, owned: Mapping[str, str]) -> str:
    return f"Did you mean {name}?" + (f" Set it with the option {owned[name]}." if name in owned else "")


def _wrong_value(use: UsedOption) -> tuple[str, str] | None:
    """Text and remedy for a removed option or a wrong value; None where the option is right, as far as --help tells."""
    if use.option.about.startswith(REMOVED):
        return f"{use.word} was removed from this build of llama-server", f"--help says: {use.option.about}."
    expected = _expected(use.option, use.values[0]) if use.option.values == 1 else None
    return (f"{use.word} {use.values[0]!r} is not valid, expected {expected}", "Correct it.") if expected else None


def _expected(option: ServerOption, value: str) -> str | None:
    """What the option takes, in words, where the value is something else; None where it can be right."""
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
        return None if DECIMAL.fullmatch(value) and math.isfinite(float(value)) else "a number such as 1 or 0.5"
    return None


def _repeated(uses: Sequence[UsedOption]) -> list[str]:
    """A warning for each option that is given more than once, under any of its names, but for those that add up."""
    groups: dict[tuple[str, ...], list[UsedOption]] = {}
    for use in uses:
        if not LISTS & set(use.option.names):
            groups.setdefault(use.option.names, []).append(use)
    return [
        f"args: {' and '.join(repr(' '.join(use.words)) for use in group)} set the same option. The last one counts. "
        "Remove the others."
        for group in groups.values()
        if len(group) > 1
    ]


def _check_env(
    env: Mapping[str, str],
    options: Sequence[ServerOption],
    uses: Sequence[UsedOption],
    owned: Mapping[str, str],
    checked: Checked,
) -> None:
    """Check LLAMA_ARG_*. llama-server reads them before the command line, and ignores unknown ones."""
    by_env = {option.env: option for option in options if option.env}
    for name, value in env.items():
        if not name.startswith(PREFIX):
            continue
        positive = by_env.get(PREFIX + name[len(NEGATED) :]) if name.startswith(NEGATED) else None
        option = by_env.get(name) or positive
        if option is None:
            wrong: tuple[str, str] | None = _unknown_variable(name, by_env, owned)
        else:
            wrong = _wrong_variable(name, value, option, negates=name not in by_env)
        if wrong:
            checked.add("env", *wrong)
            checked.wrong_env.append(name)
            continue
        overriding = next((use for use in uses if use.option is option), None)
        if overriding:
            checked.warnings.append(
                f"env: {name}={value} has no effect, because {' '.join(overriding.words)} is on the command line. "
                "Remove one of them."
            )


def _unknown_variable(name: str, by_env: Mapping[str, ServerOption], owned: Mapping[str, str]) -> tuple[str, str]:
    instead = REPLACED.get(name)
    if instead:
        return f"{name} was removed from this build of llama-server", f"Add '{instead}' to args."
    # Without the prefix, which makes all of them similar.
    near = _similar(name[len(PREFIX) :], {variable[len(PREFIX) :]: option for variable, option in by_env.items()})
    if near:
        return f"unknown variable {name}, which llama-server ignores", _suggestion(PREFIX + near, owned)
    return f"unknown variable {name}, which llama-server ignores", "Put the option into args, under its own name."


def _wrong_variable(name: str, value: str, option: ServerOption, negates: bool) -> tuple[str, str] | None:
    if negates:
        text = f"{name}={value} has the effect of {name}=1: llama-server only checks whether the variable is set"
        return None if value in ON else (text, f"Remove it, or write {name}=1.")
    if option.values == 0:
        # llama-server silently reads any other word as off.
        expected = None if value in (*ON, *OFF) else "on or off, in lower case"
    else:
        expected = _expected(option, value) if option.values == 1 else None
    return (f"{name}={value} is not valid, expected {expected}", "Correct it.") if expected else None
