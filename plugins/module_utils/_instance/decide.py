# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about an instance with a whole spec, and everything that can be known before that.

Private to gpufleet.llamacpp; may change at any time. Reads the host, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._gate.wait import default_timeout
from .._host import runtime
from .._preflight import check as preflight
from .._preflight import files as needed_files
from .._preflight import memory, resources
from .._preflight.files import FoundFiles
from .._preflight.memory import MemoryCheck
from .._preflight.resources import Resources
from .._preflight.service_user import check_access, check_user
from .._preflight.setuid import check_starter
from .._result import Problem, Refusal
from .._spec import launch, render
from .._spec.record import ImageFacts, ModelFacts, Record, Setup
from .._spec.render import Place, Wanted
from .._spec.spec import Spec, can_be_looked_at, canonical
from . import observe, plan
from .request import Case, Desired, Request, as_options, as_recorded, case_of


@dataclass(frozen=True)
class Seen:
    """What was observed: the files and GPUs of the spec, the instance as it is, and what the spec means with them."""

    files: FoundFiles
    resources: Resources
    wanted: Wanted
    observed: plan.Observed


@dataclass(frozen=True)
class Decision:
    """The steps from what is there to what should be; ``missing`` as in Answer."""

    observed: plan.Observed
    wanted: Wanted
    steps: list[plan.Step]
    warnings: list[str]
    missing: list[Problem]
    memory: MemoryCheck


def open_case(request: Request) -> Case:
    """The whole spec, from the options or from the record, where it meets the host. Raises Refusal."""
    if request.params["model"] is None and request.params["port"] is None:
        return case_of(*as_recorded(request))
    try:
        return case_of(request, as_options(request))
    except Refusal as refusal:
        raise Refusal([*refusal.problems, *_host_problems(request, refusal)]) from refusal


def _host_problems(request: Request, refusal: Refusal) -> list[Problem]:
    """What else is wrong on the host with a spec that is refused, where the spec still says where to look."""
    options = [request.params[name] for name in ("image", "model", "port")]
    if None in options or not can_be_looked_at(request.params, refusal.problems):
        return []
    try:
        case = case_of(request, Desired(canonical(request.params, request.home), {}))
        decide(case, look(case))
    except Refusal as more:
        return [problem for problem in more.problems if problem not in refusal.problems]
    return []


def look(case: Case) -> Seen:
    """Observe. A server that runs as it should is not asked for its GPUs: neither they nor others on them move it."""
    files = needed_files.find_files(case.spec, case.request.run, case.last, case.image, case.request.cache.put)
    known = resources.recorded_resources(case.spec, case.last)
    if known:
        seen = _seen(case, files, known)
        if "start" not in plan.kinds(_steps(case, seen)):
            return seen
    request = case.request
    found = resources.read_resources(case.spec, request.home, case.last, request.library, request.before)
    return _seen(case, files, found)


def decide(case: Case, seen: Seen) -> Decision:
    """Plan, and check everything that can be known before a stop. Raises Refusal with every problem."""
    steps = _steps(case, seen)
    kinds = plan.kinds(steps)
    record, place, request = seen.wanted.record, case.place, case.request
    missing = [*seen.files.missing, *check_user(place.manager.runs_as(case.spec.user))]
    # What an earlier task is still to bring cannot be asked.
    can_ask = bool(kinds) and not case.image.comes and not missing and not seen.files.problems
    found = preflight.check_instance(
        case.spec,
        record.launch,
        preflight.HostAccess(
            home=place.home,
            run=request.run,
            cache=request.cache,
            our_runner=observe.running(case.former or place).get("runner_pid"),
            image_sha256=record.launch.image_sha256,
            driver=seen.resources.driver,
        ),
        kinds=kinds,
        asks_image=can_ask,
        min_build=request.params["min_build"],
    )
    found.add(seen.files.problems)
    if "start" in kinds:
        found.add(seen.resources.problems, seen.resources.warnings)
        found.add(check_starter(place.manager, seen.files.runtime, request.run))
        found.add(check_access(place.manager.runs_as(case.spec.user), render.needed_paths(place, record)))
    fits = MemoryCheck()
    if can_ask and not found.problems:
        fits = resources.check_memory(case.spec, record.launch, request.run, seen.resources, case.last)
        if "start" in kinds:
            found.add(fits.problems, fits.warnings)
    # In check mode an earlier task may have brought what is missing.
    if found.problems or (missing and not request.check):
        raise Refusal([*found.problems, *missing])
    planned = fits.record or memory.recorded_memory(case.last, record.launch.id)
    wanted = replace(seen.wanted, record=replace(record, memory=planned))
    return Decision(seen.observed, wanted, steps, found.warnings, missing, fits)


def rendered(place: Place, record: Record, timeout: int | None) -> Wanted:
    """The record with its files. ``timeout`` in seconds, None for one that fits the model's size."""
    return render.wanted(place, record, timeout or default_timeout(record.model.size if record.model else None))


def _seen(case: Case, files: FoundFiles, found: Resources) -> Seen:
    request, last = case.request, case.last
    record = Record(
        setup_of(case.place, case.spec, files, found.uuids), last.release if last else None, case.gate, None
    )
    wanted = rendered(case.place, record, request.params["wait_timeout"])
    keep_enabled = request.state == "present"
    observed = observe.observe(case.place, last, wanted, former=case.former, keep_enabled=keep_enabled)
    return Seen(files, found, wanted, observed)


def _steps(case: Case, seen: Seen) -> list[plan.Step]:
    return plan.decide(case.request.state, seen.wanted, seen.observed, case.place.folder)


def setup_of(place: Place, spec: Spec, files: FoundFiles, gpus: tuple[str, ...] | None) -> Setup:
    """What the spec means on this host, with these files and GPUs (UUIDs, as launch.Found has them)."""
    image = ImageFacts.from_json(files.image) if files.image else None
    model = ModelFacts.from_json(files.model) if files.model else None
    found = launch.Found(
        runtime=files.runtime,
        server_path=image.server_path if image else None,
        image_sha256=image.sha256 if image else None,
        model_sha256=model.sha256 if model else None,
        certificates=tuple(runtime.certificate_binds()),
        user=place.manager.runs_as(spec.user),
        user_home=render.user_home(place, spec),
        gpus=gpus,
    )
    start = launch.build(spec, found, state_file=place.state_file, log=place.log)
    return Setup(spec, place.manager.name, start, image, model)
