# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check port, command line and image of an instance before anything is touched, and report all problems at once.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._gguf import file as gguf
from .._host import ports, runner
from .._host.runtime import Run
from .._llama import compat, lint, lint_server
from .._llama.probe import FactsCache, ServerFacts, probe
from .._result import Problem
from .._spec import store
from .._spec.launch import Launch
from .._spec.options import OWNED
from .._spec.spec import Spec
from .gpus import pids_of
from .pitfalls import check_pitfalls


@dataclass
class Findings:
    """Everything that was found. Problems forbid the change; warnings go with it."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, problems: Iterable[Problem], warnings: Iterable[str] = ()) -> None:
        """Add both, each once."""
        self.problems += [problem for problem in problems if problem not in self.problems]
        self.warnings += [warning for warning in warnings if warning not in self.warnings]


@dataclass(frozen=True)
class HostAccess:
    """The facts of the host that the checks need, and the ways to it.

    home: the folder of the instances. cache: what is known of its images. our_runner: the pid of the instance's own
    runner. image_sha256: of the image's file. driver: the driver's CUDA version as NVML has it, such as 12080.
    """

    home: str
    run: Run
    cache: FactsCache
    our_runner: int | None = None
    image_sha256: str | None = None
    driver: int | None = None


def check_instance(
    spec: Spec,
    launch: Launch,
    host: HostAccess,
    *,
    kinds: Collection[str],
    asks_image: bool,
    min_build: int | None,
) -> Findings:
    """Check an instance that steps of these ``kinds`` are to change.

    Without steps no container is started, and only ``min_build`` is checked, against what is known of the image.
    ``asks_image``: the image, the model and all other files are there, so the
    image can be run.
    """
    found = Findings()
    if not kinds:
        known = host.cache.get(host.image_sha256, launch.server)
        if known and min_build is not None:
            found.add(*compat.check_build(known, spec.image, min_build))
        return found
    if "start" in kinds:
        found.add([*check_port(spec, host.home, host.our_runner), *check_address(spec)])
    found.add(*check_pitfalls(spec, launch.arguments, _metadata(spec.model)))
    if asks_image:
        facts = probe(launch.container, launch.server, host.run, host.cache, host.image_sha256)
        found.add(*compat.check_build(facts, spec.image, min_build))
        if spec.gpus:
            found.add(*compat.check_driver(facts, spec.image, host.driver))
        found.add(*_check_command_line(spec, launch, facts, host.run))
    return found


def _metadata(model: str) -> Mapping[str, Any] | None:
    """The header of the model's first file; None where there is no sound one yet."""
    try:
        return gguf.read(model).metadata
    except (OSError, gguf.GgufError):
        return None


def check_port(spec: Spec, home: str, our_runner: int | None) -> list[Problem]:
    """Whether another instance of this home, or a process that is not this instance's, has the port."""
    others = store.others(home, spec.name)
    declared = [name for name, other in others.items() if other.spec.port == spec.port]
    if declared:
        choose = "Choose another port."
        return [
            Problem("port", f"{spec.port} belongs to the instance {name} of this host", choose, may_pass=True)
            for name in declared
        ]
    ours = set(runner.below(our_runner)) if our_runner else set()
    # Of our own processes we see the pid. So a holder without one is another user's.
    strangers = [holder for holder in ports.listeners(spec.port) if holder.pid not in ours]
    return [
        Problem(
            "port",
            f"{spec.port} is in use by {holder}",
            "Stop that process (with its run.sh, if it is another server), or choose another port.",
            # An instance whose record has another port by now gives this one up when it is restarted.
            may_pass=any(holder.pid in pids_of(other.launch) for other in others.values()),
        )
        for holder in strangers
    ]


def check_address(spec: Spec) -> list[Problem]:
    """Whether the server may listen on the port without root, and on an address of this host."""
    problems = []
    lowest = ports.lowest()
    if spec.port < lowest:
        text = f"{spec.port} needs root, and this user may use {lowest} and above"
        problems.append(Problem("port", text, "Choose such a port."))
    reason = ports.unusable(spec.host)
    if reason:
        remedy = (
            "Use an address of this host (`ip address` lists them), 127.0.0.1 for this host only, or 0.0.0.0 for all "
            "addresses."
        )
        problems.append(Problem("host", f"no server can listen on {spec.host} here ({reason})", remedy))
    return problems


def _check_command_line(spec: Spec, launch: Launch, facts: ServerFacts, run: Run) -> tuple[list[Problem], list[str]]:
    """Problems and warnings of the command line: against the image's help, then by its parser."""
    begin, words = [*launch.container, launch.server], launch.arguments
    if facts.failure:
        return [lint_server.failure_problem(begin, spec.image, *facts.failure)], []
    if not facts.options:
        return lint_server.check_parser(begin, lint.split_options(words), spec.image, run), []
    checked = lint.check_arguments(words, dict(spec.env), facts.options, OWNED)
    refused = lint_server.check_parser(begin, checked.sound, spec.image, run, without=checked.wrong_env)
    return [*checked.problems, *refused], checked.warnings
