# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states stopped and absent, for which the host's record says enough.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os

from .._host import layout
from .._preflight.gpus import Neighbour, pids_of
from .._result import Problem, Refusal, diff_of, result
from .._spec.spec import check_name
from . import apply, observe, plan, status
from .request import Answer, Request, place_of, recorded


def retire(request: Request) -> Answer:
    """Stop or remove the instance. Raises Refusal, ManagerError, BrokenRecord and OSError."""
    problems = check_name(request.name)
    if problems:
        raise Refusal(problems)
    name, last = request.name, recorded(request)
    if last is None:
        return _without_record(request)
    place = place_of(request, last.manager)
    observed = observe.observe(place, last, None)
    steps = plan.decide(request.state, None, observed, place.folder)
    warnings = [] if request.check else apply.apply(place, steps, last)
    before = {"state": "running" if observed.active else "stopped"}
    after = {"state": request.state} if steps else before
    if request.state == "absent":
        instance = status.absent(name)
    elif steps and not request.check:
        instance = status.look(place, last)
    else:
        instance = status.describe(place, last, observed.unit)
    # An instance that is only stopped stays declared, and its memory is kept for it.
    takes = Neighbour(name, pids=pids_of(last.launch), comes=True) if request.state == "absent" else None
    return Answer(result(steps, instance, "instance", diff=diff_of(before, after, name)), warnings, takes=takes)


def _without_record(request: Request) -> Answer:
    """There is nothing to stop, and nothing of ours to remove. Raises Refusal."""
    name, folder = request.name, layout.instance(request.home, request.name)
    if request.state == "stopped":
        raise Refusal([Problem("name", f"there is no instance {name} in {request.home}, so it cannot be stopped")])
    if os.path.exists(folder):
        text = f"{folder} is not an instance (it has no instance.json), so it is not removed"
        raise Refusal([Problem("name", text, path=folder)])
    return Answer(result([], status.absent(name), "instance", diff=diff_of({}, {}, name)))
