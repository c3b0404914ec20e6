# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a launch to a release: start it, prove it, record it; and roll back where it fails.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .._host.manager import ManagerError
from .._spec import store
from .._spec.record import Record
from .._spec.render import Place
from . import apply, postmortem, rollback
from .prove import GateFailed, prove
from .restart import restart


def release(
    place: Place, record: Record, timeout: int | None, starts: bool, may_roll_back: bool = True
) -> tuple[Record, list[str]]:
    """Start the instance if ``starts``, pass the gate and record the release; returns the record with it, and warnings.

    Where that fails, the evidence is kept and the last release is started again, unless ``may_roll_back`` is off.
    Raises GateFailed with the cause and what became of the instance.
    """
    warnings: list[str] = []
    before: Mapping[str, Any] = {}
    try:
        if starts:
            restarted = restart(place, record)
            before, warnings = restarted.before, restarted.warnings
        proven = prove(place, record, timeout, before)
    except (GateFailed, ManagerError) as error:
        failure = error if isinstance(error, GateFailed) else GateFailed("stop and start", error.problems, str(error))
        kept = postmortem.keep(place, record, str(failure))
        outcome = rollback.roll_back(place, record, timeout) if may_roll_back else rollback.leave_stopped(place, record)
        raise failure.noted(*warnings, outcome, kept) from error
    former = record.release
    if former and former.setup.launch.id != proven.setup.launch.id:
        store.keep_release(place.folder, former)
    done = replace(record, release=proven)
    apply.write_record(place, done)
    return done, warnings
