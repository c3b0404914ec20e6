# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance brought to its state: observe, plan, apply, prove, in this order.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import sif
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager as managers
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.runtime import Run
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import (
    apply,
    describe,
    observe,
    plan,
    preflight,
    prove,
    record,
    survey,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.observe import Place
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.spec import (
    WHOLE_STATES,
    Spec,
    check_name,
    parse,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Action, Refusal, diff_of, result


@dataclass(frozen=True)
class Request:
    """What the module was asked: its options, whether it may change anything, and its ways to the host."""

    params: Mapping[str, Any]
    home: str
    check: bool
    run: Run
    ensure_library: Callable[[str], None]

    @property
    def state(self) -> str:
        """The wanted state."""
        return str(self.params["state"])


def ensure(request: Request) -> dict[str, Any]:
    """Bring the instance to its state; returns the module's result. Raises Refusal and GateFailed, in words."""
    params = request.params
    spec = parse(params, request.home) if request.state in WHOLE_STATES else None
    problems = check_name(params["name"])
    if problems:
        raise Refusal(problems)
    last = _last(request)
    if spec is None:
        return _without_spec(request, last)
    return _with_spec(request, spec, last)


def _last(request: Request) -> dict[str, Any] | None:
    try:
        return record.read(os.path.join(request.home, request.params["name"]))
    except (ValueError, OSError) as error:
        raise Refusal([str(error)]) from error


def _place(request: Request, wish: str, last: Mapping[str, Any] | None) -> Place:
    """The instance's place. What "auto" once chose stays, so that a login setting cannot move a running server."""
    if wish == "auto" and last:
        wish = last["manager"]
    try:
        manager = managers.select(wish, home=request.home, run=request.run, may_change=not request.check)
    except managers.ManagerError as error:
        raise Refusal([f"manager: {error}."]) from error
    return Place(request.home, request.params["name"], manager, request.run)


def _without_spec(request: Request, last: Mapping[str, Any] | None) -> dict[str, Any]:
    """stopped and absent: the record on the host tells what the instance is."""
    name = request.params["name"]
    folder = os.path.join(request.home, name)
    if last is None:
        if request.state == "stopped":
            raise Refusal([f"name: there is no instance {name} in {request.home}, so it cannot be stopped."])
        if os.path.exists(folder):
            raise Refusal([f"name: {folder} is not an instance (it has no instance.json), so it is not removed."])
        return result([], describe.absent(name), "instance", diff=diff_of({}, {}, name))
    place = _place(request, last["manager"], last)
    observed = observe.observe(place, last, None)
    steps = plan.decide(request.state, None, observed, folder)
    if not request.check:
        apply.carry_out(place, steps, last, last)
    gone = request.state == "absent"
    resource = describe.absent(name) if gone else describe.describe(place, last)
    before = {"state": "running" if observed.unit_active else "stopped"}
    after = {"state": request.state} if steps else before
    return result(steps, resource, "instance", diff=diff_of(before, after, name))


def _with_spec(request: Request, spec: Spec, last: Mapping[str, Any] | None) -> dict[str, Any]:
    place = _place(request, spec.manager, last)
    pulls = _pull_reason(request, spec)
    found, want, steps, warnings = _plan(request, place, spec, last, pulls=pulls is not None)
    actions: list[Action] = []
    if pulls:
        actions.append(Action(f"pull the image to {spec.image}", pulls))
    if pulls and not request.check:
        # The running server keeps its own file, so this touches nothing; only now can the image be asked anything.
        request.ensure_library("requests")
        sif.pull(request.params["image"], spec.image, str(request.params["image_sha256"]).lower())
        found, want, steps, warnings = _plan(request, place, spec, last, pulls=False)
    actions += steps
    value: dict[str, Any] = dict(want.record)
    if steps and not request.check:
        value = _apply_and_prove(request, place, steps, value, last)
    there = last if request.check else value
    resource = describe.describe(place, there) if there else describe.absent(spec.name)
    difference = diff_of(_shown(last), _shown(want.record), spec.name)
    return result(actions, resource, "instance", diff=difference, warnings=warnings)


def _plan(
    request: Request, place: Place, spec: Spec, last: Mapping[str, Any] | None, pulls: bool
) -> tuple[survey.Survey, plan.Wanted, list[plan.Step], list[str]]:
    """Observe and plan; raises Refusal with every problem. Returns the warnings too."""
    found = survey.look(spec, request.run, last, pulls_image=pulls)
    want = observe.wanted(place, spec, found, (last or {}).get("release"), request.params["wait_timeout"])
    observed = observe.observe(place, last, want)
    steps = plan.decide(request.state, want, observed, place.folder)
    return found, want, steps, _refuse(request, place, spec, found, want, steps)


def _pull_reason(request: Request, spec: Spec) -> str | None:
    """Why the image has to be pulled from its address, or None."""
    if "://" not in request.params["image"]:
        return None
    try:
        why = sif.pull_reason(spec.image, str(request.params["image_sha256"]).lower(), request.params["pull"])
    except OSError as error:
        raise Refusal([f"image: {spec.image} cannot be read: {error.strerror}."]) from error
    if why and request.params["pull"] == "never":
        raise Refusal([f"image: {spec.image}: {why}, and pull is never. Bring it there, or let it be pulled."])
    return why


def _refuse(
    request: Request,
    place: Place,
    spec: Spec,
    found: survey.Survey,
    want: plan.Wanted,
    steps: list[plan.Step],
) -> list[str]:
    """Raise Refusal with every problem; returns warnings. What check mode cannot know yet is a warning there."""
    problems = list(found.problems)
    warnings: list[str] = []
    (warnings if request.check else problems).extend(found.missing)
    starts = "start" in plan.subjects(steps)
    if starts:
        problems += preflight.port_problems(spec, place.home, observe.running(place).get("runner_pid"))
    if steps and found.image and found.runtime and found.model and not found.problems:
        server = spec.server_path or found.image["server_path"]
        problems += preflight.argument_problems(spec, server, want.record["launch"]["argv"], request.run)
    if problems:
        raise Refusal(problems)
    return warnings


def _apply_and_prove(
    request: Request,
    place: Place,
    steps: list[plan.Step],
    value: dict[str, Any],
    last: Mapping[str, Any] | None,
) -> dict[str, Any]:
    kinds = plan.subjects(steps)
    proves = bool(kinds & {"start", "prove"})
    if proves:
        # A module that moves into the host's environment begins anew, so this comes before the first change.
        request.ensure_library("requests")
    apply.carry_out(place, steps, value, last)
    if "start" in kinds:
        apply.start(place, value)
    if proves:
        return prove.prove(place, value, request.params["wait_timeout"])
    return value


def _shown(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """What --diff compares: the command line a word a line, and the files behind it."""
    if value is None:
        return {}
    launch = value["launch"]
    return {
        "argv": launch["argv"],
        "image_sha256": launch["image_sha256"],
        "model_sha256": launch["model_sha256"],
        "manager": value["manager"],
    }
