# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an image's own llama-server whether it accepts a command line. For that it loads, binds and writes nothing.

Private to gpufleet.llamacpp; may change at any time.

llama-server parses the whole command line before --completion-bash prints and exits (llama.cpp common/arg.cpp). It
stops at the first mistake. So the option that it refuses is removed, and it is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .._artifact.image.inspect import RUNTIME_FAILED, TIMED_OUT, TIMEOUT, bounded
from .._host.runtime import Run
from .._result import Problem
from .argv import spelled
from .lint import UsedOption
from .options import SIDE_EFFECTS

ASKS = "--completion-bash"
INVALID = "invalid argument: "
REFUSES = re.compile(r'error while handling (argument|environment variable) "([^"]+)": (?:error: )?(.*)')
# llama-server repeats C++'s own message for a value that is not a number: "stoi".
NO_NUMBER = re.compile(r"sto[a-z]+")
PATHS = ("FNAME", "PATH", "FILE", "DIR", "JINJA_TEMPLATE_FILE")
ABSENT = re.compile(r"stat (/\S+): no such file")


def check_parser(
    begin: Sequence[str], uses: Sequence[UsedOption], image: str, run: Run, without: Sequence[str] = ()
) -> list[Problem]:
    """Every problem that llama-server's parser has with these options.

    ``begin``: the launch's command line up to llama-server. ``without``: variables to remove from it.
    """
    begin = _without(begin, without)
    problems: list[Problem] = []
    left = [use for use in uses if not set(use.option.names) & set(SIDE_EFFECTS)]
    while True:
        code, dummy, err = run(bounded([*begin, *(word for use in left for word in use.words), ASKS]))
        if code == 0 or f"{INVALID}{ASKS}" in err:
            return problems  # a build without --completion-bash reports its mistakes when it starts
        match = REFUSES.search(err) if code != RUNTIME_FAILED else None
        wrong = [use for use in left if match and spelled(use.word) == spelled(match[2])]
        if match is None or (match[1] == "argument" and not wrong):
            return [*problems, failure_problem(begin, image, code, err)]
        if match[1] != "argument":
            problems.append(Problem("env", f"llama-server refuses {match[2]}: {_plain(match[3])}", "Correct it."))
            if _without(begin, [match[2]]) == list(begin):
                return problems
            begin = _without(begin, [match[2]])
            continue
        problems.append(_refused(wrong[-1], match[3]))
        left = [use for use in left if use not in wrong]


def _refused(use: UsedOption, answer: str) -> Problem:
    option = use.option
    remedy = "Correct it."
    if option.terms:
        remedy = f"Its help lists {', '.join(option.terms)}."
    elif option.hint in PATHS:
        remedy = "The path is inside the container; binds mounts folders of the host there."
    elif option.hint:
        remedy = f"It takes {option.hint}: {option.about}."
    return Problem("args", f"llama-server refuses {' '.join(use.words)!r}: {_plain(answer)}", remedy)


def _without(begin: Sequence[str], names: Sequence[str]) -> list[str]:
    """The container's command without these variables."""
    kept: list[str] = []
    for word in begin:
        if kept and kept[-1] == "--env" and word.lstrip('"').partition("=")[0] in names:
            kept.pop()
        else:
            kept.append(word)
    return kept


def _plain(answer: str) -> str:
    """What llama-server printed about an option, without a final period."""
    return "expected a number" if NO_NUMBER.fullmatch(answer.strip()) else answer.strip().rstrip(".")


def failure_problem(begin: Sequence[str], image: str, code: int, err: str) -> Problem:
    """What exit status and messages of a llama-server mean that did not even parse its command line."""
    program, server = begin[0], begin[-1]
    lines = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith("INFO:")]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))] or lines[-3:]
    message = "; ".join(errors)[:600].rstrip(".") or f"exit status {code}"
    absent = ABSENT.search(err)
    if code == RUNTIME_FAILED and absent and absent[1] == server:
        return Problem(
            "server_path", f"{image} has no {server}", "Name a path inside the image, or remove server_path."
        )
    if code == RUNTIME_FAILED:
        text = f"{image} cannot be run on this host: {message}"
        return Problem("image", text, f"Try `{program} exec {image} true`.")
    if code in TIMED_OUT:
        text = f"the llama-server in {image} did not answer within {TIMEOUT} s, although it had nothing to load"
        return Problem("image", text, "Check that nvidia-smi answers on this host.")
    return Problem("args", f"the llama-server in {image} refuses its command line: {message}", "Correct it.")
