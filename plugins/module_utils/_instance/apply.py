# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying a plan out: files, unit, and the server itself.

Private to gpufleet.llamacpp; may change at any time. What can fail without touching the running server stands first in
every plan, so it is done first here.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager as managers
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.files import write_atomic
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import observe, record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.observe import Place
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.plan import Step

# instance.json can hold the operator's env, so it is not for everybody.
RECORD_MODE = 0o640
FOLDER_MODE = 0o750
MODES = {"run.sh": 0o755, "runner.py": 0o644}


def make_folder(place: Place, user: str) -> None:
    """The instance's folder, private to its owner and the server's user. Raises OSError."""
    os.makedirs(place.folder, mode=FOLDER_MODE, exist_ok=True)
    os.chmod(place.folder, FOLDER_MODE)
    share(place, place.folder, user)


def share(place: Place, path: str, user: str) -> None:
    """Let the user of a system unit read what root wrote, and not write it: root runs the control script."""
    if place.manager.name == "systemd":
        os.chown(path, 0, grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_gid)


def write_record(place: Place, value: Mapping[str, Any]) -> None:
    """instance.json. Raises OSError."""
    record.write(place.folder, value, RECORD_MODE)
    share(place, record.path(place.folder), value["spec"]["user"])


def write_file(place: Place, step: Step, user: str) -> None:
    """One file of the instance's folder. Raises OSError."""
    write_atomic(step.path, step.content, MODES[os.path.basename(step.path)])
    share(place, step.path, user)


def remove_unit(place: Place, last: Mapping[str, Any]) -> None:
    """Stop what runs under the recorded manager and remove its unit; that manager may be another one than wanted."""
    manager = managers.select(last["manager"], home=place.home, run=place.run)
    old = observe.unit(Place(place.home, place.name, manager, place.run), last["spec"])
    manager.stop(old)
    manager.remove(old)


def carry_out(place: Place, steps: Sequence[Step], value: Mapping[str, Any], last: Mapping[str, Any] | None) -> None:
    """Every step up to the start of the server. ``value`` is the record that the steps make true.

    Raises OSError and ManagerError.
    """
    spec = value["spec"]
    unit = observe.unit(place, spec)
    for step in steps:
        if step.kind == "make_folder":
            make_folder(place, spec["user"])
        elif step.kind == "remove_unit":
            remove_unit(place, last or value)
        elif step.kind == "write" and step.path == record.path(place.folder):
            write_record(place, value)
        elif step.kind == "write":
            write_file(place, step, spec["user"])
        elif step.kind == "install_unit":
            place.manager.install(unit)
        elif step.kind == "stop":
            place.manager.stop(unit)
        elif step.kind == "disable":
            place.manager.install(observe.unit(place, spec, enabled=False))
        elif step.kind == "remove":
            shutil.rmtree(place.folder)


def start(place: Place, value: Mapping[str, Any]) -> None:
    """Stop what runs and start the recorded launch; returns at once, readiness is the gate's to see."""
    unit = observe.unit(place, value["spec"])
    place.manager.stop(unit)
    place.manager.start(unit)
