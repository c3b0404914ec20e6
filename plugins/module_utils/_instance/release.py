# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting an instance and passing the gate, recording the release, and the way back where it does not pass.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from .._gate import options
from .._host import manager as managers
from .._spec import record
from . import apply, failure_report, observe, plan, restart
from .observe import Place
from .prove import RUNS, GateFailed, gate

__all__ = ["GateFailed", "gate", "no_way_back", "prove"]


def prove(
    place: Place, value: dict[str, Any], timeout: int | None, starts: bool, rollback: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Start the instance if ``starts``, pass the gate and record the release; returns the record with it, and warnings.

    Where that fails, the evidence is kept, and the last release comes back unless ``rollback`` is off. Raises
    GateFailed, which tells the cause and what became of the instance.
    """
    warnings: list[str] = []
    before: Mapping[str, Any] = {}
    try:
        if starts:
            swapped = restart.swap(place, value)
            before, warnings = swapped.before, swapped.warnings
        release = gate(place, value, timeout, before)
    except (GateFailed, managers.ManagerError) as failure:
        said = str(failure) if isinstance(failure, GateFailed) else f"Failed at stop and start: {failure}"
        kept = failure_report.keep(place, value, said)
        back = way_back(place, value, timeout) if rollback else stand_still(place, value)
        raise GateFailed("\n".join([said, *warnings, back, kept])) from failure
    former = value["release"]
    if former and former["launch"]["id"] != release["launch"]["id"]:
        record.keep_release(place.folder, former)
    done = {**value, "release": release}
    apply.write_record(place, done)
    return done, warnings


def stand_still(place: Place, value: Mapping[str, Any]) -> str:
    """Stop what failed and leave it so: the way back is switched off. Says what became of it; raises nothing."""
    try:
        apply.halt(place, value)
    except (managers.ManagerError, OSError) as error:
        return f"It could not be stopped either: {error} {_left(place, value)}"
    release = value["release"]
    last = f"The last release is that of {release['proven']}." if release else "There is no earlier release."
    return f"It is stopped and does not start at boot, because rollback is off. {last}"


def way_back(place: Place, value: Mapping[str, Any], timeout: int | None) -> str:
    """Stop what failed and run the last release again, if there is one. Says what became of it; raises nothing."""
    release = value["release"]
    if release and release["launch"]["id"] == value["launch"]["id"]:
        # Nothing of it changed, so what is wrong lies outside, and its manager will find out when that is over.
        return f"It is the release of {release['proven']} itself, so it is left to {value['manager']} to try again."
    try:
        apply.halt(place, value)
        obstacle = no_way_back(value)
        if obstacle:
            return f"The instance is stopped: {obstacle}."
        return _run_again(place, value, timeout)
    except (GateFailed, managers.ManagerError, OSError) as error:
        return f"The way back to the last release failed too: {error}\n{_left(place, value)}"


def _left(place: Place, value: Mapping[str, Any]) -> str:
    """In what state the unit is left, in words."""
    try:
        state = place.manager.observe(observe.unit(place, value["spec"]))
    except (managers.ManagerError, OSError) as error:
        return f"In what state {value['manager']} has it cannot be seen: {error}"
    return f"{value['manager']} has it as: {state.detail or ('running' if state.active else 'stopped')}."


def no_way_back(value: Mapping[str, Any]) -> str | None:
    """Why the last release in the record cannot be run again, or None. Looks at whether its files are there."""
    release = value["release"]
    if not release:
        return "there is no earlier release to go back to"
    for kind in ("image", "model"):
        was, now = release.get(kind) or {}, value[kind] or {}
        path, digest = was.get("path", ""), str(was.get("sha256"))[:12]
        if path == now.get("path") and was.get("sha256") != now.get("sha256"):
            return f"the release of {release['proven']} ran another {kind} in {path} (sha256 {digest}...)"
        if not os.path.exists(path):
            return f"the {kind} of the release of {release['proven']}, {path}, is not there any more"
    return None


def _run_again(place: Place, value: Mapping[str, Any], timeout: int | None) -> str:
    """The last release brought to the state started as any spec is. Raises GateFailed, ManagerError and OSError."""
    release = value["release"]
    begin = time.monotonic()
    old = {**value, **{key: release[key] for key in RUNS}}
    # It passed everything once. Now it only has to serve again, and soon.
    quick = {**old, "gate": options.from_dict(value.get("gate")).for_rollback().as_dict()}
    there, failed = place, None
    if release["manager"] != place.manager.name:
        manager = managers.select(release["manager"], home=place.home, run=place.run)
        there, failed = Place(place.home, place.name, manager, place.run), place
    want = observe.whole(there, old, timeout)
    steps = plan.decide("started", want, observe.observe(there, value, want, former=failed), there.folder)
    apply.carry_out(there, steps, old, failed)
    before = restart.swap(there, old).before
    try:
        gate(there, quick, timeout, before)
    except GateFailed as failure:
        kept = failure_report.keep(there, old, str(failure))
        return (
            f"The release of {release['proven']} was started again, and does not work either: {failure}\n{kept} "
            f"It is left to {old['manager']} to try again."
        )
    return f"Back on the release of {release['proven']}, serving again after {time.monotonic() - begin:.0f} s."
