# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module was asked for one instance, and what it answers.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._artifact.image import resolve as images
from .._artifact.image.naming import path_of
from .._artifact.image.resolve import Image
from .._artifact.image.sources.source import ImageAccess, RunCommand
from .._gate import options as gate_options
from .._host import layout
from .._host import manager as managers
from .._llama.probe import FactsCache
from .._preflight.gpus import Neighbour
from .._result import Problem, Refusal
from .._spec import store
from .._spec.record import Record
from .._spec.render import Place
from .._spec.spec import Spec, check_image, check_name, parse


@dataclass(frozen=True)
class Request:
    """The module's options, whether it may change anything, and its ways to the host.

    ``library``: have one that the host's Python environment has; False where there is none, which ends the module where
    it may change something. ``hide``: is told what no output may hold. ``before``: the instances that the same run
    changes before this one, as they will be by then.
    """

    params: Mapping[str, Any]
    home: str
    check: bool
    run: RunCommand
    library: Callable[[str], bool]
    hide: Callable[[str], object]
    before: tuple[Neighbour, ...] = ()

    @property
    def name(self) -> str:
        """The name of the instance."""
        return str(self.params["name"])

    @property
    def state(self) -> str:
        """The desired state."""
        return str(self.params["state"])

    @property
    def image_sha256(self) -> str | None:
        """The sha256 that the image must have, where one was given."""
        return (self.params["image_sha256"] or "").lower() or None

    @property
    def cache(self) -> FactsCache:
        """What is known of the home's images; check mode does not write it."""
        return FactsCache(self.home, writes=not self.check)

    def image_access(self) -> ImageAccess:
        """The ways to an image. Raises Refusal."""
        access = images.access_of(self.params, self.run, lambda: self.library("requests"), self.hide)
        return replace(access, remember=self.cache.put)


@dataclass(frozen=True)
class Desired:
    """The spec, and how much the gate proves of it, as it is recorded."""

    spec: Spec
    gate: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """The request where it meets the host: the place of the instance, what is recorded there, and its image.

    ``former`` is the place under the recorded manager, where that is another one.
    """

    request: Request
    spec: Spec
    gate: Mapping[str, Any]
    image: Image
    place: Place
    former: Place | None
    last: Record | None


@dataclass(frozen=True)
class Answer:
    """The module's result and its warnings; the rest is for the plan of a whole host.

    ``missing``: what was not there and is to be brought by an earlier task, in check mode; ``image``: which one would
    come from its address; ``touched``: files are the same, and their stat values, which are to be recorded, are not;
    ``takes``: what an instance whose server is to be started, or that is to be removed, has of the GPUs by then.
    """

    result: dict[str, Any]
    warnings: Sequence[str] = ()
    missing: Sequence[Problem] = ()
    image: Image | None = None
    touched: bool = False
    takes: Neighbour | None = None


def recorded(request: Request) -> Record | None:
    """The record of the instance. Raises BrokenRecord and OSError."""
    return store.read(layout.instance(request.home, request.name))


def place_of(request: Request, manager: str) -> Place:
    """The place of the instance under this manager. Raises Refusal."""
    try:
        chosen = managers.select(manager, home=request.home, run=request.run)
    except managers.ManagerError as error:
        raise Refusal([replace(problem, option="manager") for problem in error.problems]) from error
    return Place(request.home, request.name, chosen, request.run)


def as_options(request: Request) -> Desired:
    """What the options say. Raises Refusal with every problem of the spec and of the gate."""
    lacking = [key for key in ("image", "model", "port") if request.params[key] is None]
    if lacking:
        remedy = "A new instance needs image, model and port."
        raise Refusal([Problem(key, "it is missing", remedy) for key in lacking])
    problems = gate_options.check(request.params)
    try:
        spec = parse(request.params, request.home)
    except Refusal as refusal:
        problems = [*refusal.problems, *problems]
    if problems:
        raise Refusal(problems)
    return Desired(spec, gate_options.parse(request.params).as_dict())


def as_recorded(request: Request) -> tuple[Request, Desired]:
    """The instance as it is recorded, with no more than another image. Raises Refusal where there is none."""
    problems = check_name(request.name)
    last = None if problems else recorded(request)
    if last is None:
        text = f"there is no instance {request.name} in {request.home}"
        raise Refusal(problems or [Problem("name", text, "To make one, give image, model and port.")])
    image = request.params["image"]
    problems = check_image(image, request.image_sha256, request.params["pull"]) if image else []
    if problems:
        raise Refusal(problems)
    spec = replace(last.spec, image=path_of(image, request.home)) if image else last.spec
    gate = gate_options.from_dict(last.gate).as_dict()
    return replace(request, params={**request.params, "image": image or spec.image}), Desired(spec, gate)


def case_of(request: Request, desired: Desired) -> Case:
    """Where the desired state meets the host. Raises Refusal.

    What "auto" once chose stays: a login setting must not move a running server.
    """
    last, spec = recorded(request), desired.spec
    place = place_of(request, last.manager if last and spec.manager == "auto" else spec.manager)
    former = place_of(request, last.manager) if last and last.manager != place.manager.name else None
    image = images.locate(
        images.ImageRequest(
            request.params["image"],
            request.image_sha256,
            request.params["pull"],
            request.home,
            last.image.to_json() if last and last.image else {},
            request.image_access(),
        )
    )
    return Case(request, replace(spec, image=image.path), desired.gate, image, place, former, last)
