# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make the start fail or mean something else, asked before anything is touched, and told all at once.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._gguf import file as gguf
from .._host import ports, runner
from .._host.runtime import Run
from .._llama import compat, lint, lint_server
from .._llama import probe as image_probe
from .._llama.probe import FactsCache, ServerFacts
from .._spec import record
from .._spec.options import OWNED
from .._spec.spec import Spec
from . import pitfalls


@dataclass
class Findings:
    """Everything that was found: problems forbid the change, warnings go with it."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, problems: Collection[str], warnings: Collection[str] = ()) -> None:
        """More of both; what was said already is not said again."""
        self.problems += [problem for problem in problems if problem not in self.problems]
        self.warnings += [warning for warning in warnings if warning not in self.warnings]


@dataclass(frozen=True)
class Host:
    """What the checks need to know of the host, and what they may do there.

    home: the folder of the instances. our_runner: the pid of the instance's own runner. image_sha256: of the image's
    file. driver: NVML's number of the CUDA that the driver has, such as 12080. remember: whether what an image says may
    be written into the home; not in check mode.
    """

    home: str
    run: Run
    cache: FactsCache
    our_runner: int | None = None
    image_sha256: str | None = None
    driver: int | None = None


def check(
    spec: Spec, argv: Sequence[str], host: Host, *, kinds: Collection[str], asks_image: bool, min_build: int | None
) -> Findings:
    """Look at port, meaning, arguments and image of an instance that is to be changed by steps of these ``kinds``.

    Without steps no container is started, and only a lowest build is held against what the image once said.
    ``argv`` is the launch's command line; ``asks_image``: whether image, model and all else that it names is there, so
    that the image can be run.
    """
    found = Findings()
    if not kinds:
        said = host.cache.get(host.image_sha256, argv[argv.index(spec.image) + 1])
        if said and min_build is not None:
            found.add(*compat.build_problems(said, spec.image, min_build))
        return found
    if "start" in kinds:
        found.add([*port_problems(spec, host.home, host.our_runner), *address_problems(spec)])
    found.add(*pitfalls.check(spec, argv[argv.index(spec.image) + 2 :], _metadata(spec.model)))
    if asks_image:
        said = image_probe.probe(argv, spec.image, host.run, host.cache, host.image_sha256)
        found.add(*compat.build_problems(said, spec.image, min_build))
        if spec.gpus:
            found.add(*compat.driver_problems(said, spec.image, host.driver))
        found.add(*_arguments(spec, argv, said, host.run))
    return found


def _metadata(model: str) -> Mapping[str, Any] | None:
    """What the header of the model's first file says; None where there is none yet, or no sound one."""
    try:
        return gguf.read(model).metadata
    except (OSError, gguf.GgufError):
        return None


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


def address_problems(spec: Spec) -> list[str]:
    """Whether the server may listen where it should: on an address of this host, and on a port that needs no root."""
    problems = []
    lowest = ports.lowest()
    if spec.port < lowest:
        problems.append(f"port: {spec.port} needs root, and this user may use {lowest} and above. Choose such a port.")
    reason = ports.unusable(spec.host)
    if reason:
        problems.append(
            f"host: nothing can listen on {spec.host} here ({reason}). Name an address of this host (ip address lists "
            "them), 127.0.0.1 for itself alone, or 0.0.0.0 for all of them."
        )
    return problems


def _arguments(spec: Spec, argv: Sequence[str], said: ServerFacts, run: Run) -> tuple[list[str], list[str]]:
    """Problems and warnings of the command line: what can be seen in the image's help, then what its parser says."""
    server = argv.index(spec.image) + 1
    begin, words = argv[: server + 1], argv[server + 1 :]
    if said.failure:
        return lint_server.plainly(begin, spec.image, *said.failure), []
    if not said.options:
        return lint_server.refuses(begin, lint.as_they_stand(words), spec.image, run), []
    checked = lint.check(words, dict(spec.env), said.options, OWNED)
    refused = lint_server.refuses(begin, checked.sound, spec.image, run, without=checked.wrong_env)
    return [*checked.problems, *refused], checked.warnings
