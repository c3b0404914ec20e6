# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance brought to its state: observe, plan, apply, prove.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._artifact.image import resolve as images
from .._result import Problem, Refusal
from .._spec.record import Record
from .._spec.spec import WHOLE_STATES
from . import apply as changes
from . import decide, plan, status
from .decide import Decision
from .release import release
from .request import Answer, Case, Request
from .retire import retire


def reconcile(request: Request) -> Answer:
    """Bring the instance to its state. Raises OperatorError, of which GateFailed is one, and OSError."""
    if request.state not in WHOLE_STATES:
        return retire(request)
    case = decide.open_case(request)
    decision = observe_and_plan(case)
    if request.check:
        return status.answer(case, decision, _as_it_is(case, decision))
    pulled = case.image.actions
    case, decision = bring_image(case, decision)
    apply(case, decision)
    record, warnings = prove(case, decision)
    decision.warnings.extend(warnings)
    after = status.look(case.place, record) if decision.steps else _as_it_is(case, decision)
    return status.answer(case, decision, after, pulled=pulled)


def observe_and_plan(case: Case) -> Decision:
    """Read the host, and decide what to do. Raises Refusal with every problem."""
    return decide.decide(case, decide.look(case))


def bring_image(case: Case, decision: Decision) -> tuple[Case, Decision]:
    """Pull the image, if it comes from an address, and decide again: only now can it be asked anything.

    The running server keeps its own file, so this does not touch it.
    """
    request = case.request
    image = images.bring(case.image, request.image_access())
    brought = replace(case, image=image)
    if not case.image.actions:
        return brought, decision
    try:
        return brought, observe_and_plan(brought)
    except Refusal as refusal:
        text = f"the new image was pulled to {case.spec.image} and stays there; the server was not touched"
        raise Refusal([*refusal.problems, Problem("image", text)]) from refusal


def apply(case: Case, decision: Decision) -> None:
    """Do every step but the start. Raises OSError and ManagerError."""
    place, record = case.place, decision.wanted.record
    if _proves(decision):
        # A module that moves into the host's environment begins again, so this comes before the first change.
        case.request.library("requests")
    if decision.steps:
        decision.warnings.extend(changes.apply(place, decision.steps, record, case.former))
    elif record != case.last:
        # The files are the same and were touched. With their stat values recorded, the next run need not read them.
        changes.write_record(place, record)


def prove(case: Case, decision: Decision) -> tuple[Record, list[str]]:
    """Start the server where the plan says so, pass the gate, record the release. Raises GateFailed."""
    record, params = decision.wanted.record, case.request.params
    if not _proves(decision):
        return record, []
    starts = "start" in plan.kinds(decision.steps)
    return release(case.place, record, params["wait_timeout"], starts, params["rollback"])


def _proves(decision: Decision) -> bool:
    return bool(plan.kinds(decision.steps) & {"start", "prove"})


def _as_it_is(case: Case, decision: Decision) -> dict[str, Any]:
    """The instance without a change."""
    if case.last is None:
        return status.absent(case.spec.name)
    if case.former:
        return status.look(case.former, case.last)
    record = case.last if case.request.check else decision.wanted.record
    return status.describe(case.place, record, decision.observed.unit)
