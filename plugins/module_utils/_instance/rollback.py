# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to the last release after a launch that failed. Says what became of the instance; raises nothing.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from .._gate import options
from .._host import manager as managers
from .._spec.record import Record, Release
from .._spec.render import Place, unit
from . import apply, decide, observe, plan, postmortem
from .prove import GateFailed, prove
from .restart import restart


def roll_back(place: Place, record: Record, timeout: int | None) -> str:
    """Stop what failed and start the last release again, if there is one."""
    release = record.release
    if release and release.setup.launch.id == record.launch.id:
        # Nothing about the instance changed, so the cause is outside, and its manager retries until that is over.
        return f"It is the release of {release.proven} itself, so {record.manager} keeps trying to start it."
    try:
        apply.halt(place, record)
        obstacle = no_rollback(record)
        if obstacle or release is None:
            return f"The instance is stopped: {obstacle}."
        return _start_last(place, record, release, timeout)
    except (GateFailed, managers.ManagerError, OSError) as error:
        return f"The rollback to the last release failed too: {error}\n{_unit_state(place, record)}"


def leave_stopped(place: Place, record: Record) -> str:
    """Stop what failed and leave it so, because rollback is off."""
    try:
        apply.halt(place, record)
    except (managers.ManagerError, OSError) as error:
        return f"It could not be stopped either: {error} {_unit_state(place, record)}"
    release = record.release
    last = f"The last release is that of {release.proven}." if release else "There is no earlier release."
    return f"It is stopped and does not start at boot, because rollback is off. {last}"


def no_rollback(record: Record) -> str | None:
    """Why the last release cannot be started again, or None. Looks at whether its files are there."""
    release = record.release
    if not release:
        return "there is no earlier release to roll back to"
    setup = release.setup
    for kind, was, now in (("image", setup.image, record.image), ("model", setup.model, record.model)):
        path, digest = (was.path, str(was.sha256)[:12]) if was else ("", "None")
        if now and path == now.path and was and was.sha256 != now.sha256:
            return f"the release of {release.proven} ran another {kind} in {path} (sha256 {digest}...)"
        if not os.path.exists(path):
            return f"the {kind} of the release of {release.proven}, {path}, is not there any more"
    return None


def _start_last(place: Place, record: Record, release: Release, timeout: int | None) -> str:
    """Bring the last release to the state started, as any spec. Raises GateFailed, ManagerError and OSError."""
    begin = time.monotonic()
    old = record.of_release(release)
    # It passed the whole gate once. Now it only has to answer, and soon.
    quick = replace(old, gate=options.from_dict(record.gate).for_rollback().as_dict())
    there, failed = place, None
    if old.manager != place.manager.name:
        manager = managers.select(old.manager, home=place.home, run=place.run)
        there, failed = Place(place.home, place.name, manager, place.run), place
    want = decide.rendered(there, old, timeout)
    steps = plan.decide("started", want, observe.observe(there, record, want, former=failed), there.folder)
    apply.apply(there, steps, old, failed)
    before = restart(there, old).before
    try:
        prove(there, quick, timeout, before)
    except GateFailed as failure:
        kept = postmortem.keep(there, old, str(failure))
        return (
            f"The release of {release.proven} was started again, and does not work either: {failure}\n{kept} "
            f"{old.manager} keeps trying to start it."
        )
    return f"Back on the release of {release.proven}, serving again after {time.monotonic() - begin:.0f} s."


def _unit_state(place: Place, record: Record) -> str:
    """In what state the unit is left, in words."""
    try:
        state = place.manager.observe(unit(place, record.spec))
    except (managers.ManagerError, OSError) as error:
        return f"The state of its unit under {record.manager} is not known: {error}"
    return (
        f"The state of its unit under {record.manager}: {state.detail or ('running' if state.active else 'stopped')}."
    )
