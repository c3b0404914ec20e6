# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying a plan out: files, unit, and the server itself.

Private to gpufleet.llamacpp; may change at any time. What can fail without touching the running server stands first in
every plan, so it is done first here.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from .._host import layout
from .._host.files import write_atomic
from .._spec import record
from . import observe, plan, restart
from .observe import Place
from .plan import Step

FOLDER_MODE = 0o750
MODES = {layout.RUN_SH: 0o755, layout.RUNNER: 0o644}


def make_folder(place: Place) -> None:
    """The instance's folder, private to its owner and the server's user. Raises OSError."""
    os.makedirs(place.folder, mode=FOLDER_MODE, exist_ok=True)
    os.chmod(place.folder, FOLDER_MODE)


def share(place: Place, user: str) -> None:
    """Let the user of a system unit read what root wrote, and not write it: root runs the control script."""
    runs_as = place.manager.runs_as(user)
    if runs_as is None:
        return
    group = pwd.getpwnam(runs_as).pw_gid
    for path in (place.folder, record.path(place.folder), *(os.path.join(place.folder, name) for name in MODES)):
        if os.path.exists(path):
            os.chown(path, 0, group)


def write_record(place: Place, value: Mapping[str, Any]) -> None:
    """instance.json. Raises OSError."""
    record.write(place.folder, value)
    share(place, value["spec"]["user"])


def carry_out(place: Place, steps: Sequence[Step], value: Mapping[str, Any], former: Place | None = None) -> list[str]:
    """Every step up to the start of the server; returns what the operator has to know about it.

    ``value`` is the record that the steps make true; ``former`` the place whose unit is to be removed, if it is another
    one. Raises OSError and ManagerError.
    """
    warnings: list[str] = []
    spec = value["spec"]
    unit = observe.unit(place, spec)
    for step in steps:
        if step.kind == "make_folder":
            make_folder(place)
        elif step.kind == "write":
            write_atomic(step.path, step.content, MODES[os.path.basename(step.path)])
        elif step.kind == "record":
            record.write(place.folder, value)
        elif step.kind == "install_unit":
            place.manager.install(observe.unit(place, spec, step.enabled))
        elif step.kind == "stop":
            place.manager.stop(unit)
            warnings += restart.cut(observe.account(place), value)
        elif step.kind == "remove_unit":
            old = former or place
            old.manager.remove(observe.unit(old, spec))
        elif step.kind == "remove":
            # In one go, so that a run which is cut off does not leave a folder that no record explains.
            gone = layout.instance_removed(place.home, place.name)
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(place.folder, gone)
            shutil.rmtree(gone)
    if plan.kinds(steps) & {"make_folder", "write", "record"}:
        share(place, spec["user"])
    return warnings


def halt(place: Place, value: Mapping[str, Any]) -> None:
    """Stop the server, and let it not start at boot. Raises OSError and ManagerError."""
    place.manager.stop(observe.unit(place, value["spec"]))
    place.manager.install(observe.unit(place, value["spec"], enabled=False))
