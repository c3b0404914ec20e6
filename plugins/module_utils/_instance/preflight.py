# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make the start fail, asked before anything is touched: the port, and the image about the arguments.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import ports, runner, runtime
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.runtime import Run
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.spec import Spec

# Already by being parsed, --log-file truncates its file and --rpc connects to its servers.
SIDE_EFFECTS = ("--log-file", "--rpc")
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
        f"port: {spec.port} is in use by {holder}. End that process, or choose another port." for holder in strangers
    ]


def argument_problems(spec: Spec, server: str | None, argv: Sequence[str], run: Run) -> list[str]:
    """What the image's own llama-server says to the command line; it loads, binds and writes nothing to answer.

    The whole command line is parsed before --completion-bash prints and exits (llama.cpp common/arg.cpp).
    """
    code, dummy, err = run([*_harmless(argv), "--completion-bash"])
    if code == 0:
        return []
    said = [line.strip() for line in err.splitlines() if line.strip()]
    errors = [line for line in said if line.lower().startswith(("error", "fatal"))] or said[-3:]
    unknown = [line.rpartition("invalid argument: ")[2] for line in errors if "invalid argument: " in line]
    if not unknown:
        return [f"args: llama-server in {spec.image} refuses its command line: {'; '.join(errors)}"]
    known = _options(spec, server, argv[0], run)
    return [f"args: the llama-server in {spec.image} knows no {option!r}.{_meant(option, known)}" for option in unknown]


def _harmless(argv: Sequence[str]) -> list[str]:
    """The command line without the options that do something already when they are parsed, and their values."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if not skip and word not in SIDE_EFFECTS:
            kept.append(word)
        skip = word in SIDE_EFFECTS
    return kept


def _options(spec: Spec, server: str | None, program: str, run: Run) -> set[str]:
    """The option names that this build of llama-server prints in its help."""
    code, out, dummy = run([program, "exec", *runtime.ISOLATION, spec.image, server or "llama-server", "--help"])
    return set(OPTION.findall(out)) if code == 0 else set()


def _meant(option: str, known: set[str]) -> str:
    near = difflib.get_close_matches(option, sorted(known), n=1)
    return f" Did you mean {near[0]}?" if near else " Its --help lists what it knows."
