# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance brought to its state: observe, plan, apply, prove, in this order.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._artifact.image import resolve as images
from .._artifact.image.fetch import Network
from .._artifact.image.naming import path_of
from .._artifact.image.resolve import Image
from .._artifact.image.signature import Run
from .._gate import options as gate_options
from .._host import manager as managers
from .._llama.probe import FactsCache
from .._preflight import check as preflight
from .._preflight import files as needed_files
from .._preflight import memory, resources
from .._preflight.gpus import Neighbour, pids_of
from .._preflight.memory import MemoryCheck
from .._preflight.resources import Resources
from .._preflight.service_user import check_access, check_user
from .._preflight.setuid import check_starter
from .._result import Problem, Refusal, diff_of, result
from .._spec import record
from .._spec.spec import WHOLE_STATES, Spec, can_be_looked_at, canonical, check_image, check_name, of_record, parse
from . import apply, observe, plan, status
from . import release as prove
from .observe import Place


@dataclass(frozen=True)
class Request:
    """What the module was asked: its options, whether it may change anything, and its ways to the host.

    ``library``: have one that the host's Python environment has; False where there is none, which ends the module where
    it may change something. ``hide``: told what no output may hold. ``before``: the instances that the same run changes
    before this one, as they will be by then.
    """

    params: Mapping[str, Any]
    home: str
    check: bool
    run: Run
    library: Callable[[str], bool]
    hide: Callable[[str], object]
    before: tuple[Neighbour, ...] = ()

    @property
    def name(self) -> str:
        """The name of the instance."""
        return str(self.params["name"])

    @property
    def state(self) -> str:
        """The wanted state."""
        return str(self.params["state"])

    @property
    def cache(self) -> FactsCache:
        """What is known of the home's images; check mode writes nothing there."""
        return FactsCache(self.home, writes=not self.check)

    @property
    def image_sha256(self) -> str | None:
        """The sha256 that the image must have, where one was given."""
        return (self.params["image_sha256"] or "").lower() or None


@dataclass(frozen=True)
class Case:
    """One request for a whole spec, and where it meets the host: its place, and what is recorded there.

    ``gate`` is how much is to be proven, as it is recorded; ``former`` the place under the recorded manager where that
    is another one.
    """

    request: Request
    spec: Spec
    gate: Mapping[str, Any]
    image: Image
    place: Place
    former: Place | None
    last: Mapping[str, Any] | None


@dataclass(frozen=True)
class Decision:
    """What is there, what should be, and the steps from the one to the other; ``missing`` as in Answer."""

    observed: plan.Observed
    want: plan.Wanted
    steps: list[plan.Step]
    warnings: list[str]
    missing: list[Problem] = field(default_factory=list)
    memory: MemoryCheck = field(default_factory=MemoryCheck)


@dataclass(frozen=True)
class Answer:
    """The module's result, and what it is to warn of.

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


def ensure(request: Request) -> Answer:
    """Bring the instance to its state. Raises Refusal and GateFailed, in words."""
    if request.state in WHOLE_STATES:
        if request.params["model"] is None and request.params["port"] is None:
            return _with_spec(*_recorded(request))
        lacking = [key for key in ("image", "model", "port") if request.params[key] is None]
        if lacking:
            remedy = "A new instance needs image, model and port."
            raise Refusal([Problem(key, "it is missing", remedy) for key in lacking])
        return _with_spec(request, _parse(request), gate_options.parse(request.params).as_dict())
    problems = check_name(request.name)
    if problems:
        raise Refusal(problems)
    return _without_spec(request)


def _recorded(request: Request) -> tuple[Request, Spec, dict[str, Any]]:
    """The instance as it is recorded, with no more than another image. Raises Refusal where there is none."""
    problems = check_name(request.name)
    last = None if problems else _last(request)
    if last is None:
        text = f"there is no instance {request.name} in {request.home}"
        raise Refusal(problems or [Problem("name", text, "To make one, give image, model and port.")])
    image = request.params["image"]
    problems = check_image(image, request.image_sha256, request.params["pull"]) if image else []
    if problems:
        raise Refusal(problems)
    spec = of_record(last["spec"])
    spec = replace(spec, image=path_of(image, request.home)) if image else spec
    gate = gate_options.from_dict(last.get("gate")).as_dict()
    return replace(request, params={**request.params, "image": image or spec.image}), spec, gate


def _parse(request: Request) -> Spec:
    """The spec; raises Refusal with every problem of it, of the gate, and of the host where that can be asked."""
    problems: list[Any] = gate_options.check(request.params)
    try:
        spec = parse(request.params, request.home)
    except Refusal as refusal:
        problems = [*refusal.problems, *problems]
    if not problems:
        return spec
    if can_be_looked_at(request.params, problems):
        try:
            network = images.network_of(request.params, lambda: request.library("requests"), request.hide)
            _decide(_case(request, canonical(request.params, request.home), {}, network))
        except Refusal as refusal:
            problems += [problem for problem in refusal.problems if problem not in problems]
    raise Refusal(problems)


def _last(request: Request) -> dict[str, Any] | None:
    try:
        return record.read(os.path.join(request.home, request.name))
    except (ValueError, OSError) as error:
        raise Refusal([Problem("name", str(error))]) from error


def _place(request: Request, manager: str) -> Place:
    try:
        chosen = managers.select(manager, home=request.home, run=request.run)
    except managers.ManagerError as error:
        raise Refusal([replace(problem, option="manager") for problem in error.problems]) from error
    return Place(request.home, request.name, chosen, request.run)


def _without_spec(request: Request) -> Answer:
    """stopped and absent: the record on the host tells what the instance is."""
    name, last = request.name, _last(request)
    folder = os.path.join(request.home, name)
    if last is None:
        if request.state == "stopped":
            raise Refusal([Problem("name", f"there is no instance {name} in {request.home}, so it cannot be stopped")])
        if os.path.exists(folder):
            text = f"{folder} is not an instance (it has no instance.json), so it is not removed"
            raise Refusal([Problem("name", text, path=folder)])
        return Answer(result([], status.absent(name), "instance", diff=diff_of({}, {}, name)))
    place = _place(request, last["manager"])
    observed = observe.observe(place, last, None)
    steps = plan.decide(request.state, None, observed, folder)
    before = {"state": "running" if observed.active else "stopped"}
    after = {"state": request.state} if steps else before
    warnings = [] if request.check else apply.carry_out(place, steps, last)
    if request.state == "absent":
        resource = status.absent(name)
    elif steps and not request.check:
        resource = status.look(place, last)
    else:
        resource = status.describe(place, last, observed.unit)
    # What is only stopped stays declared, and its memory is kept for it.
    takes = Neighbour(name, pids=pids_of(last), comes=True) if request.state == "absent" else None
    return Answer(result(steps, resource, "instance", diff=diff_of(before, after, name)), warnings, takes=takes)


def _with_spec(request: Request, spec: Spec, gate: dict[str, Any]) -> Answer:
    network = images.network_of(request.params, lambda: request.library("requests"), request.hide)
    case = _case(request, spec, gate, network)
    decision = _decide(case)
    actions = case.image.actions
    if not request.check:
        # The running server keeps its own file, so this touches nothing; only now can the image be asked anything.
        brought = replace(case, image=images.bring(case.image, request.run, network, request.cache.put))
        decision = _decide_again(brought) if actions else decision
        case = brought
    resource = _apply_and_describe(case, decision)
    difference = diff_of(_shown(case.last), _shown(decision.want.record), spec.name)
    more: dict[str, Any] = {"diff": difference}
    if decision.memory.rows:
        more |= {"memory": list(decision.memory.rows), "memory_source": decision.memory.source}
    return Answer(
        result([*actions, *decision.steps], resource, "instance", **more),
        [*case.image.warnings, *map(str, decision.missing), *decision.warnings],
        decision.missing,
        case.image if actions else None,
        decision.want.record != case.last,
        _takes(case, decision),
    )


def _takes(case: Case, decision: Decision) -> Neighbour | None:
    """What a server that is to be started has of the GPUs by then; None where none is, or where it is not known yet."""
    known = decision.memory.record
    if "start" not in plan.kinds(decision.steps) or known is None:
        return None
    planned = {row["uuid"]: row["need"] for row in known["gpus"]}
    uuids = tuple(decision.want.record["launch"]["gpus"] or ())
    return Neighbour(case.spec.name, uuids, pids_of(case.last), planned, comes=True)


def _case(request: Request, spec: Spec, gate: dict[str, Any], network: Network) -> Case:
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
    return Case(request, replace(spec, image=image.path), gate, image, place, former, last)


def _decide(case: Case) -> Decision:
    """Observe and plan; raises Refusal with every problem."""
    request, spec, last = case.request, case.spec, case.last
    found = needed_files.find_files(spec, request.run, last, case.image, request.cache.put)
    room = resources.recorded_resources(spec, last)
    decision = _compare(case, found, room) if room else None
    if decision is None or "start" in plan.kinds(decision.steps):
        # A server that runs as it should is not looked at: neither the GPUs nor who else is on them can move it.
        room = resources.read_resources(spec, request.home, last, request.library, request.before)
        decision = _compare(case, found, room)
    fits = _check(case, found, room or Resources(), decision)
    value = {
        **decision.want.record,
        "memory": fits.record or memory.recorded_memory(last, decision.want.record["launch"]["id"]),
    }
    return replace(decision, want=replace(decision.want, record=value), memory=fits)


def _compare(case: Case, found: needed_files.FoundFiles, room: Resources) -> Decision:
    """What is there and what should be, with these GPUs."""
    request, place, last = case.request, case.place, case.last
    release, timeout = (last or {}).get("release"), request.params["wait_timeout"]
    want = observe.wanted(place, case.spec, found, release, timeout, room.uuids)
    want = replace(want, record={**want.record, "gate": case.gate})
    observed = observe.observe(place, last, want, former=case.former, keep_enabled=request.state == "present")
    return Decision(observed, want, plan.decide(request.state, want, observed, place.folder), [])


def _check(case: Case, found: needed_files.FoundFiles, room: Resources, decision: Decision) -> MemoryCheck:
    """Everything that can be known before anything is touched; raises Refusal with all of it. The warnings go into the
    decision. Asks the image only where something is to be done.
    """
    request, spec, place = case.request, case.spec, case.place
    kinds = plan.kinds(decision.steps)
    starts = "start" in kinds
    missing = [*found.missing, *check_user(place.manager.runs_as(spec.user))]
    # What an earlier task is still to bring cannot be asked.
    can_ask = bool(kinds) and not case.image.comes and not missing and not found.problems
    launch = decision.want.record["launch"]
    host = preflight.HostAccess(
        home=place.home,
        run=request.run,
        cache=request.cache,
        our_runner=observe.running(case.former or place).get("runner_pid"),
        image_sha256=launch["image_sha256"],
        driver=room.driver,
    )
    said = preflight.check_instance(
        spec, launch["argv"], host, kinds=kinds, asks_image=can_ask, min_build=request.params["min_build"]
    )
    said.add(found.problems)
    fits = MemoryCheck()
    if starts:
        said.add([*room.problems, *check_starter(place.manager, found.runtime, request.run)])
        said.add([], room.warnings)
        said.add(check_access(place.manager.runs_as(spec.user), observe.reads(place, decision.want.record)))
    if can_ask and not said.problems:
        fits = resources.check_memory(spec, launch, request.run, room, case.last)
        if starts:
            said.add(fits.problems, fits.warnings)
    # In check mode an earlier task would have brought what is missing, for all we know.
    if said.problems or (missing and not request.check):
        raise Refusal([*said.problems, *missing])
    decision.missing.extend(missing)
    decision.warnings.extend(said.warnings)
    return fits


def _decide_again(case: Case) -> Decision:
    try:
        return _decide(case)
    except Refusal as refusal:
        text = f"the new image was pulled to {case.spec.image} and stays there; the server was not touched"
        raise Refusal([*refusal.problems, Problem("image", text)]) from refusal


def _apply_and_describe(case: Case, decision: Decision) -> dict[str, Any]:
    """Carry the steps out and prove the outcome, except in check mode; returns the instance as it is then."""
    place, steps, last = case.place, decision.steps, case.last
    value = dict(decision.want.record)
    if case.request.check:
        if last is None:
            return status.absent(case.spec.name)
        return status.look(case.former, last) if case.former else status.describe(place, last, decision.observed.unit)
    if not steps:
        if value != last:
            # The same files, touched. With their stat values recorded, the next run need not read them.
            apply.write_record(place, value)
        return status.describe(place, value, decision.observed.unit)
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
    return status.look(place, value)


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
