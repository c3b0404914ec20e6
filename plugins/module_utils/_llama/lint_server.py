# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image's own llama-server says to a command line. It loads, binds and writes nothing to answer.

Private to gpufleet.llamacpp; may change at any time.

The whole command line is parsed before --completion-bash prints and exits (llama.cpp common/arg.cpp). It stops at the
first mistake, so what it refuses is taken out, and it is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .._artifact.image.inspect import RUNTIME_FAILED, TIMED_OUT, TIMEOUT, bounded
from .._host.runtime import Run
from .argv import spelled
from .lint import Use
from .options import SIDE_EFFECTS

ASKS = "--completion-bash"
INVALID = "invalid argument: "
REFUSES = re.compile(r'error while handling (argument|environment variable) "([^"]+)": (?:error: )?(.*)')
# C++'s own words for a value that is no number, as llama-server repeats them.
NO_NUMBER = re.compile(r"sto[a-z]+")
PATHS = ("FNAME", "PATH", "FILE", "DIR", "JINJA_TEMPLATE_FILE")
ABSENT = re.compile(r"stat (/\S+): no such file")


def refuses(begin: Sequence[str], uses: Sequence[Use], image: str, run: Run, without: Sequence[str] = ()) -> list[str]:
    """Every problem that it has with these options; ``begin`` is the launch's command line up to llama-server.

    ``without``: variables that it does not get.
    """
    begin = _without(begin, without)
    problems: list[str] = []
    left = [use for use in uses if not set(use.option.names) & set(SIDE_EFFECTS)]
    while True:
        code, dummy, err = run(bounded([*begin, *(word for use in left for word in use.words), ASKS]))
        if code == 0 or f"{INVALID}{ASKS}" in err:
            return problems  # a build that does not know the question says what is wrong when it is started
        match = REFUSES.search(err) if code != RUNTIME_FAILED else None
        wrong = [use for use in left if match and spelled(use.word) == spelled(match[2])]
        if match is None or (match[1] == "argument" and not wrong):
            return [*problems, *plainly(begin, image, code, err)]
        if match[1] != "argument":
            problems.append(f"env: llama-server refuses {match[2]}: {_in_words(match[3])}. Correct it.")
            if _without(begin, [match[2]]) == list(begin):
                return problems
            begin = _without(begin, [match[2]])
            continue
        problems.append(f"args: {_refused(wrong[-1], match[3])}")
        left = [use for use in left if use not in wrong]


def _refused(use: Use, message: str) -> str:
    about = use.option.about if use.option.about.endswith(".") else f"{use.option.about}."
    takes = f" It takes {use.option.hint}: {about}" if use.option.hint else ""
    if use.option.terms:
        takes = f" Its help names {', '.join(use.option.terms)}."
    inside = " The path is one inside the container, where binds puts folders of the host." * (use.option.hint in PATHS)
    return f"llama-server refuses {' '.join(use.words)!r}: {_in_words(message)}.{takes}{inside}"


def _without(begin: Sequence[str], names: Sequence[str]) -> list[str]:
    """The container's command without these variables."""
    kept: list[str] = []
    for word in begin:
        if kept and kept[-1] == "--env" and word.lstrip('"').partition("=")[0] in names:
            kept.pop()
        else:
            kept.append(word)
    return kept


def _in_words(message: str) -> str:
    return "a number is expected" if NO_NUMBER.fullmatch(message.strip()) else message.strip().rstrip(".")


def plainly(begin: Sequence[str], image: str, code: int, err: str) -> list[str]:
    """What the exit status and the messages mean where they name no option that we know."""
    program, server = begin[0], begin[-1]
    said = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith("INFO:")]
    errors = [line for line in said if line.lower().startswith(("error", "fatal"))] or said[-3:]
    words = "; ".join(errors)[:600] or f"exit status {code}"
    absent = ABSENT.search(err)
    if code == RUNTIME_FAILED and absent and absent[1] == server:
        return [f"server_path: there is no {server} in {image}. Name the one that is there, or take server_path out."]
    if code == RUNTIME_FAILED:
        return [f"image: {image} cannot be run on this host: {words}. Try: {program} exec {image} true"]
    if code in TIMED_OUT:
        return [
            f"image: the llama-server in {image} did not answer within {TIMEOUT} s, though it had nothing to load. See "
            "whether nvidia-smi answers on this host."
        ]
    return [f"args: the llama-server in {image} refuses its command line: {words}. Correct it."]
