# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance brought to its state: observe, plan, apply, prove, in this order.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image_fetch import Network
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image_sign import Run
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager as managers
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import (
    apply,
    describe,
    observe,
    plan,
    preflight,
    prove,
    record,
    starter,
    survey,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import image as images
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.image import Image
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.observe import Place
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.spec import (
    WHOLE_STATES,
    Spec,
    check_name,
    parse,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal, diff_of, result


@dataclass(frozen=True)
class Request:
    """What the module was asked: its options, whether it may change anything, and its ways to the host.

    ``library``: have one that the host's Python environment has; False where there is none, which ends the module where
    it may change something. ``hide``: told what no output may hold.
    """

    params: Mapping[str, Any]
    home: str
    check: bool
    run: Run
    library: Callable[[str], bool]
    hide: Callable[[str], object]

    @property
    def name(self) -> str:
        """The name of the instance."""
        return str(self.params["name"])

    @property
    def state(self) -> str:
        """The wanted state."""
        return str(self.params["state"])

    @property
    def image_sha256(self) -> str | None:
        """The sha256 that the image must have, where one was given."""
        return (self.params["image_sha256"] or "").lower() or None


@dataclass(frozen=True)
class Case:
    """One request for a whole spec, and where it meets the host: its place, and what is recorded there.

    ``former`` is the place under the recorded manager where that is another one.
    """

    request: Request
    spec: Spec
    image: Image
    place: Place
    former: Place | None
    last: Mapping[str, Any] | None


@dataclass(frozen=True)
class Decision:
    """What is there, what should be, and the steps from the one to the other."""

    observed: plan.Observed
    want: plan.Wanted
    steps: list[plan.Step]
    warnings: list[str]


def ensure(request: Request) -> dict[str, Any]:
    """Bring the instance to its state; returns the module's result. Raises Refusal and GateFailed, in words."""
    if request.state in WHOLE_STATES:
        return _with_spec(request, parse(request.params, request.home))
    problems = check_name(request.name)
    if problems:
        raise Refusal(problems)
    return _without_spec(request)


def _last(request: Request) -> dict[str, Any] | None:
    try:
        return record.read(os.path.join(request.home, request.name))
    except (ValueError, OSError) as error:
        raise Refusal([str(error)]) from error


def _place(request: Request, manager: str) -> Place:
    try:
        chosen = managers.select(manager, home=request.home, run=request.run)
    except managers.ManagerError as error:
        raise Refusal([f"manager: {error}."]) from error
    return Place(request.home, request.name, chosen, request.run)


def _without_spec(request: Request) -> dict[str, Any]:
    """stopped and absent: the record on the host tells what the instance is."""
    name, last = request.name, _last(request)
    folder = os.path.join(request.home, name)
    if last is None:
        if request.state == "stopped":
            raise Refusal([f"name: there is no instance {name} in {request.home}, so it cannot be stopped."])
        if os.path.exists(folder):
            raise Refusal([f"name: {folder} is not an instance (it has no instance.json), so it is not removed."])
        return result([], describe.absent(name), "instance", diff=diff_of({}, {}, name))
    place = _place(request, last["manager"])
    observed = observe.observe(place, last, None)
    steps = plan.decide(request.state, None, observed, folder)
    before = {"state": "running" if observed.active else "stopped"}
    after = {"state": request.state} if steps else before
    warnings = [] if request.check else apply.carry_out(place, steps, last)
    if request.state == "absent":
        resource = describe.absent(name)
    elif steps and not request.check:
        resource = describe.look(place, last)
    else:
        resource = describe.describe(place, last, observed.unit)
    return result(steps, resource, "instance", diff=diff_of(before, after, name), warnings=warnings)


def _with_spec(request: Request, spec: Spec) -> dict[str, Any]:
    network = images.network_of(request.params, lambda: request.library("requests"), request.hide)
    case = _case(request, spec, network)
    decision = _decide(case)
    actions = case.image.actions
    if not request.check:
        # The running server keeps its own file, so this touches nothing; only now can the image be asked anything.
        brought = replace(case, image=images.bring(case.image, request.run, network))
        decision = _decide_again(brought) if actions else decision
        case = brought
    resource = _apply_and_describe(case, decision)
    difference = diff_of(_shown(case.last), _shown(decision.want.record), spec.name)
    warnings = [*case.image.warnings, *decision.warnings]
    return result([*actions, *decision.steps], resource, "instance", diff=difference, warnings=warnings)


def _case(request: Request, spec: Spec, network: Network) -> Case:
    """Where the spec meets the host. What "auto" once chose stays: a login setting must not move a running server."""
    last = _last(request)
    place = _place(request, last["manager"] if last and spec.manager == "auto" else spec.manager)
    moves = last is not None and last["manager"] != place.manager.name
    asked = images.Asked(
        request.params["image"],
        request.image_sha256,
        request.params["pull"],
        request.home,
        (last or {}).get("image") or {},
        request.run,
        network,
        lambda: request.library("requests"),
    )
    image = images.locate(asked)
    former = _place(request, last["manager"]) if last and moves else None
    return Case(request, replace(spec, image=image.path), image, place, former, last)


def _decide(case: Case) -> Decision:
    """Observe and plan; raises Refusal with every problem."""
    request, spec, place, last = case.request, case.spec, case.place, case.last
    found = survey.look(spec, request.run, last, case.image)
    want = observe.wanted(place, spec, found, (last or {}).get("release"), request.params["wait_timeout"])
    observed = observe.observe(place, last, want, former=case.former, keep_enabled=request.state == "present")
    steps = plan.decide(request.state, want, observed, place.folder)
    missing = [*found.missing, *preflight.user_problems(place.manager.name, spec.user)]
    problems = list(found.problems)
    if "start" in plan.kinds(steps):
        runner = observe.running(case.former or place).get("runner_pid")
        problems += preflight.port_problems(spec, place.home, runner)
        problems += starter.problems(place.manager.name, found.runtime, request.run)
    if steps and not case.image.comes and not missing and not found.problems:
        problems += preflight.argument_problems(spec, want.record["launch"]["argv"], request.run)
    # In check mode an earlier task would have brought what is missing, for all we know.
    if problems or (missing and not request.check):
        raise Refusal([*problems, *missing])
    return Decision(observed, want, steps, missing)


def _decide_again(case: Case) -> Decision:
    try:
        return _decide(case)
    except Refusal as refusal:
        said = f"The new image was pulled to {case.spec.image} and stays there; the server was not touched."
        raise Refusal([*refusal.problems, said]) from refusal


def _apply_and_describe(case: Case, decision: Decision) -> dict[str, Any]:
    """Carry the steps out and prove the outcome, except in check mode; returns the instance as it is then."""
    place, steps, last = case.place, decision.steps, case.last
    value = dict(decision.want.record)
    if case.request.check:
        if last is None:
            return describe.absent(case.spec.name)
        return (
            describe.look(case.former, last) if case.former else describe.describe(place, last, decision.observed.unit)
        )
    if not steps:
        if value != last:
            # Only stat values differ: the same files, touched. With them recorded, the next run need not read them.
            apply.write_record(place, value)
        return describe.describe(place, value, decision.observed.unit)
    kinds = plan.kinds(steps)
    proves = bool(kinds & {"start", "prove"})
    if proves:
        # A module that moves into the host's environment begins anew, so this comes before the first change.
        case.request.library("requests")
    decision.warnings.extend(apply.carry_out(place, steps, value, case.former))
    if proves:
        timeout, rollback = case.request.params["wait_timeout"], case.request.params["rollback"]
        value, warnings = prove.prove(place, value, timeout, starts="start" in kinds, rollback=rollback)
        decision.warnings.extend(warnings)
    return describe.look(place, value)


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
