# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out: files, record and unit, up to the stop of the server.

Private to gpufleet.llamacpp; may change at any time. Every plan begins with what can fail without touching the running
server, so that is done first here.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence

from .._host import layout
from .._host.files import write_atomic
from .._spec import store
from .._spec.record import Record
from .._spec.render import Place, unit
from . import observe, plan, restart
from .plan import Step

FOLDER_MODE = 0o750
MODES = {layout.RUN_SH: 0o755, layout.RUNNER: 0o644}


def make_folder(place: Place) -> None:
    """Make the instance's folder, private to its owner and the server's user. Raises OSError."""
    os.makedirs(place.folder, mode=FOLDER_MODE, exist_ok=True)
    os.chmod(place.folder, FOLDER_MODE)


def share(place: Place, user: str) -> None:
    """Let the user of a system unit read what root wrote, and not write it: root runs run.sh."""
    runs_as = place.manager.runs_as(user)
    if runs_as is None:
        return
    group = pwd.getpwnam(runs_as).pw_gid
    for path in (place.folder, store.path(place.folder), *(os.path.join(place.folder, name) for name in MODES)):
        if os.path.exists(path):
            os.chown(path, 0, group)


def write_record(place: Place, record: Record) -> None:
    """Write instance.json. Raises OSError."""
    store.write(place.folder, record)
    share(place, record.spec.user)


def apply(place: Place, steps: Sequence[Step], record: Record, former: Place | None = None) -> list[str]:
    """Do every step but the start and the proof; returns warnings.

    ``record`` is what the steps make true; ``former`` is the place whose unit is to be removed, if it is another one.
    Raises OSError and ManagerError.
    """
    warnings: list[str] = []
    for step in steps:
        if step.kind == "make_folder":
            make_folder(place)
        elif step.kind == "write":
            write_atomic(step.path, step.content, MODES[os.path.basename(step.path)])
        elif step.kind == "record":
            store.write(place.folder, record)
        elif step.kind == "install_unit":
            place.manager.install(unit(place, record.spec, step.enabled))
        elif step.kind == "stop":
            place.manager.stop(unit(place, record.spec))
            warnings += restart.cut_requests(observe.runner_state(place), record.launch)
        elif step.kind == "remove_unit":
            old = former or place
            old.manager.remove(unit(old, record.spec))
        elif step.kind == "remove":
            # Renamed first, so that a run that is cut off leaves no folder that no record explains.
            gone = layout.instance_removed(place.home, place.name)
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(place.folder, gone)
            shutil.rmtree(gone)
    if plan.kinds(steps) & {"make_folder", "write", "record"}:
        share(place, record.spec.user)
    return warnings


def halt(place: Place, record: Record) -> None:
    """Stop the server, and do not start it at boot. Raises OSError and ManagerError."""
    place.manager.stop(unit(place, record.spec))
    place.manager.install(unit(place, record.spec, enabled=False))
