# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What should be on the host for a spec: the record, the files of the instance's folder, and the manager's unit.

Private to gpufleet.llamacpp; may change at any time. Nothing is written here.
"""

from __future__ import annotations

import inspect
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from .._host import layout, runner
from .._host import manager as managers
from .._host.runtime import Run
from . import launch, run_sh
from .record import Record
from .spec import Spec


@dataclass(frozen=True)
class Place:
    """Where on the host the instance is, and the manager that keeps it running."""

    home: str
    name: str
    manager: managers.Manager
    run: Run

    @property
    def folder(self) -> str:
        """The instance's folder."""
        return layout.instance(self.home, self.name)

    @property
    def log(self) -> str | None:
        """The log file, or None where the journal keeps the log."""
        return None if self.manager.has_journal else os.path.join(self.folder, layout.LOG)

    @property
    def state_file(self) -> str:
        """The runner's state file. A system unit's user may not write to the instance's folder."""
        return os.path.join(self.manager.state_dir(self.folder), layout.STATE)


@dataclass(frozen=True)
class Wanted:
    """What should be there, rendered whole: the record, and every other file of the instance's folder.

    ``manager_why``: why ``auto`` chose the manager and not a better one, as a phrase; "" where there is nothing to say.
    """

    record: Record
    files: Mapping[str, bytes]
    folder: str
    manager_why: str = ""


def unit(place: Place, spec: Spec, enabled: bool = True) -> managers.Unit:
    """The unit of the instance: its runner, kept running by the manager."""
    python = layout.venv_python(place.home)
    stopping = spec.drain_timeout + launch.STOP_TIMEOUT
    return managers.Unit(
        name=place.name,
        description=f"llama-server {place.name} on port {spec.port}",
        # -I and -S: the standard library is all it needs, and at a restart every tenth of a second counts.
        command=(
            python if os.path.exists(python) else sys.executable,
            "-IS",
            os.path.join(place.folder, layout.RUNNER),
            place.folder,
        ),
        directory=place.folder,
        user=place.manager.runs_as(spec.user),
        enabled=enabled,
        start_timeout=stopping,  # of a former runner; the start itself asks for more time as it goes
        stop_timeout=stopping,
        mounts=(os.path.dirname(spec.model), os.path.dirname(spec.image)),
        log=place.log,
    )


def needed_paths(place: Place, record: Record) -> list[str]:
    """What the user that the server runs as has to be able to read."""
    binds = [bind.split(":")[0] for bind in record.spec.binds]
    program = unit(place, record.spec).command[0]
    return [place.home, program, record.launch.container[0], *record.launch.files, *binds]


def user_home(place: Place, spec: Spec) -> str:
    """The home folder of the user that the server runs as."""
    user = place.manager.runs_as(spec.user)
    try:
        return os.path.expanduser("~") if user is None else pwd.getpwnam(user).pw_dir
    except KeyError:
        return "/nonexistent"


def wanted(place: Place, record: Record, start_timeout: int) -> Wanted:
    """The record with the other files that belong to it. ``start_timeout`` in seconds, for run.sh."""
    script = run_sh.render(
        record.spec,
        record.launch,
        record.manager,
        place.manager.commands(unit(place, record.spec)),
        start_timeout=start_timeout,
        user_bus=place.manager.needs_user_bus,
    )
    files = {
        os.path.join(place.folder, layout.RUNNER): inspect.getsource(runner).encode(),
        os.path.join(place.folder, layout.RUN_SH): script,
    }
    return Wanted(record, files, place.folder, place.manager.why)
