# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read an instance on the host: its record, its files, its unit, and the process that runs. Changes nothing.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._host import manager as managers
from .._host import process, runner
from .._host.files import read_bytes, read_json
from .._spec.record import Record
from .._spec.render import Place, Wanted, unit
from .plan import Observed


def runner_state(place: Place) -> dict[str, Any]:
    """The runner's state file, also that of a runner that has ended; empty where there is none to be read."""
    try:
        state = read_json(place.state_file)
    except (ValueError, OSError):
        return {}
    return state if isinstance(state, dict) else {}


def running(place: Place) -> dict[str, Any]:
    """The state file of the runner that runs now; empty where none does, whatever an old file says."""
    state = runner_state(place)
    return state if process.alive(state.get("runner_pid"), state.get("runner_start")) else {}


def observe(
    place: Place,
    last: Record | None,
    want: Wanted | None,
    *,
    former: Place | None = None,
    keep_enabled: bool = False,
) -> Observed:
    """Read record, files, unit and process of the instance.

    ``former`` is the place under the recorded manager where another is wanted; ``keep_enabled``: whether the unit
    starts at boot is to stay as it is. Raises ManagerError.
    """
    spec = want.record.spec if want else last.spec if last else None
    state = managers.UnitState()
    differences: list[str] = []
    if spec:
        state = place.manager.observe(unit(place, spec))
        # The unit's file is compared with the wanted one only where a whole spec says what is wanted.
        if want and state.installed:
            differences = place.manager.differs(unit(place, spec, state.enabled if keep_enabled else True))
    now = running(former or place)
    return Observed(
        record=last,
        files={path: read_bytes(path) for path in want.files} if want else {},
        folder_exists=os.path.isdir(place.folder),
        unit=state,
        unit_differences=tuple(differences),
        former_active=bool(former and last and former.manager.observe(unit(former, last.spec)).active),
        running_launch=now.get("launch"),
        ready=bool(now.get("ready")) or not now,
        ended=(now.get("exit") or {}).get("status"),
        replaced=tuple(replaced(now, want.record if want else None)),
    )


def replaced(state: Mapping[str, Any], record: Record | None) -> list[str]:
    """The files that were replaced since the running server opened them, by the runner's state file.

    The model and the image, whose digests are recorded, count as replaced when the inode is another one: a change of
    content shows in the digest, and a touch must not load 200 GB again. Missing files are reported elsewhere.
    """
    by_digest = [file.path for file in record.model.files] if record and record.model else []
    by_digest += [record.spec.image] if record else []
    found = []
    for path, was in (state.get("files") or {}).items():
        now = runner.stamp(path)
        if was and now and (was[:1] != now[:1] if path in by_digest else was != now):
            found.append(path)
    return found
