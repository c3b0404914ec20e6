# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make the start fail, asked before anything is touched: the port, and the image about the arguments.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import difflib
import pwd
import re
from collections.abc import Sequence

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import ports, runner
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.runtime import Run
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.spec import Spec, option_name

# Already by being parsed, --log-file truncates its file and --rpc connects to its servers.
SIDE_EFFECTS = ("--log-file", "--rpc")
INVALID = "invalid argument: "
# Has the command line parsed, prints, and exits.
ASKS = "--completion-bash"
# Exit status of Apptainer and Singularity where the container itself cannot be started.
RUNTIME_FAILED = 255
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


def port_problems(spec: Spec, home: str, our_runner: int | None) -> list[str]:
    """Who else holds the port: another instance of this home, or a process that is not one of this instance."""
    neighbours = [name for name, other in record.others(home, spec.name).items() if other["spec"]["port"] == spec.port]
    problems = [
        f"port: {spec.port} belongs to the instance {name} of this host. Choose another." for name in neighbours
    ]
    holders = ports.listeners(spec.port)
    if not holders or neighbours:
        return problems
    ours = set(runner.below(our_runner)) if our_runner else set()
    # A holder whose pid we may not see belongs to somebody else: of our own processes we see it.
    strangers = [holder for holder in holders if holder.pid not in ours]
    return [
        f"port: {spec.port} is in use by {holder}. End it (a server of another run.sh: with that script), or choose "
        "another port."
        for holder in strangers
    ]


def user_problems(manager: str, user: str) -> list[str]:
    """Whether the user is there whom a unit of the host has to run the server as."""
    if manager != "systemd":
        return []
    try:
        pwd.getpwnam(user)
    except KeyError:
        return [
            f"user: this host has no user {user}, whom the server is to run as. Create it as a system user (the role "
            "gpufleet.llamacpp.llamacpp_host does), or name another."
        ]
    return []


def argument_problems(spec: Spec, argv: Sequence[str], run: Run) -> list[str]:
    """What the image's own llama-server says to the command line; it loads, binds and writes nothing to answer.

    The whole command line is parsed before --completion-bash prints and exits (llama.cpp common/arg.cpp).
    """
    code, dummy, err = run([*_harmless(argv), ASKS])
    if code == 0 or f"{INVALID}{ASKS}" in err:
        return []  # a build that does not know the question says what is wrong when it is started
    said = [line.strip() for line in err.splitlines() if line.strip()]
    errors = (
        [line for line in said if line.lower().startswith(("error", "fatal"))] or said[-3:] or [f"exit status {code}"]
    )
    if code == RUNTIME_FAILED:
        return [f"image: {spec.image} cannot be run on this host: {'; '.join(errors)}. Try: {argv[0]} exec IMAGE true"]
    unknown = [line.rpartition(INVALID)[2] for line in errors if INVALID in line]
    if not unknown:
        # C++'s own words for a value that is no number, as llama-server repeats them.
        said_plainly = "; ".join(re.sub(r": sto[a-z]+$", ": a number is expected", line) for line in errors)
        return [f"args: llama-server in {spec.image} refuses its command line: {said_plainly}. Correct it."]
    known = _options(argv[: argv.index(spec.image) + 2], run)
    return [f"args: the llama-server in {spec.image} {_meant(word, known)}" for word in unknown]


def _harmless(argv: Sequence[str]) -> list[str]:
    """The command line without the options that do something already when they are parsed, and their values."""
    kept: list[str] = []
    skip = False
    for word in argv:
        acts = not skip and option_name(word) in SIDE_EFFECTS
        if not skip and not acts:
            kept.append(word)
        skip = acts
    return kept


def _options(server: Sequence[str], run: Run) -> set[str]:
    """The option names that this build of llama-server prints in its help."""
    code, out, dummy = run([*server, "--help"])
    return set(OPTION.findall(out)) if code == 0 else set()


def _meant(word: str, known: set[str]) -> str:
    if not word.startswith("-"):
        return f"takes {word!r} for an option, because the one before it has no value. Take {word!r} out."
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f"knows no {word!r}. " + (f"Did you mean {near[0]}?" if near else "Its --help lists what it knows.")
