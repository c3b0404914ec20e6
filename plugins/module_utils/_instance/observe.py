# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of an instance on the host, and what should be there, side by side. Reads, and changes nothing.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import inspect
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._gate.wait import default_timeout
from .._host import layout, process, runner, runtime
from .._host import manager as managers
from .._host.files import read_bytes, read_json
from .._host.runtime import Run
from .._preflight.files import FoundFiles
from .._spec import launch, record, run_sh
from .._spec.options import BY_NAME
from .._spec.spec import Spec
from .plan import Observed, Wanted


@dataclass(frozen=True)
class Place:
    """Where on the host the instance lives, and what it is kept running by."""

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
        """The runner's account of the running server. A system unit's user may not write to the instance's folder."""
        return os.path.join(self.manager.state_dir(self.folder), layout.STATE)


def unit(place: Place, spec: Mapping[str, Any], enabled: bool = True) -> managers.Unit:
    """What the manager is to keep running: the runner of this instance, for a spec in its recorded form."""
    python = layout.venv_python(place.home)
    stopping = spec.get("drain_timeout", BY_NAME["drain_timeout"].default) + launch.STOP_TIMEOUT
    return managers.Unit(
        name=place.name,
        description=f"llama-server {place.name} on port {spec['port']}",
        # -I and -S: the standard library is all it needs, and at a restart every tenth of a second counts.
        command=(
            python if os.path.exists(python) else sys.executable,
            "-IS",
            os.path.join(place.folder, layout.RUNNER),
            place.folder,
        ),
        directory=place.folder,
        user=place.manager.runs_as(spec["user"]),
        enabled=enabled,
        start_timeout=stopping,  # of a former runner; the start itself asks for more time as it goes
        stop_timeout=stopping,
        mounts=(os.path.dirname(spec["model"]), os.path.dirname(spec["image"])),
        log=place.log,
    )


def reads(place: Place, value: Mapping[str, Any]) -> list[str]:
    """What has to be within reach of the user that the server of this record runs as."""
    spec, launch_ = value["spec"], value["launch"]
    program = unit(place, spec).command[0]
    binds = [bind.split(":")[0] for bind in spec["binds"]]
    return [place.home, program, launch_["argv"][0], *launch_["files"], *binds]


def wanted(
    place: Place,
    spec: Spec,
    found_files: FoundFiles,
    release: Mapping[str, Any] | None,
    timeout: int | None,
    gpus: tuple[str, ...] | None = (),
) -> Wanted:
    """Everything that should be in the instance's folder, rendered whole. ``gpus`` as launch.Found has them."""
    user = place.manager.runs_as(spec.user)
    found = launch.Found(
        runtime=found_files.runtime,
        server_path=(found_files.image or {}).get("server_path"),
        image_sha256=(found_files.image or {}).get("sha256"),
        model_sha256=(found_files.model or {}).get("sha256"),
        certificates=tuple(runtime.certificate_binds()),
        user=user,
        user_home=os.path.expanduser("~") if user is None else _user_home(user),
        gpus=gpus,
    )
    start = launch.build(spec, found, state_file=place.state_file, log=place.log)
    value = record.make(spec.as_dict(), place.manager.name, start, found_files.image, found_files.model, release)
    return whole(place, value, timeout)


def whole(place: Place, value: Mapping[str, Any], timeout: int | None) -> Wanted:
    """A record with the other files that belong to it."""
    script = run_sh.render(
        value["spec"],
        value["launch"],
        place.manager.name,
        place.manager.commands(unit(place, value["spec"])),
        start_timeout=timeout or default_timeout((value["model"] or {}).get("size")),
        user_bus=place.manager.needs_user_bus,
    )
    files = {
        os.path.join(place.folder, layout.RUNNER): inspect.getsource(runner).encode(),
        os.path.join(place.folder, layout.RUN_SH): script,
    }
    return Wanted(value, files, place.folder, place.manager.why)


def _user_home(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return "/nonexistent"


def account(place: Place) -> dict[str, Any]:
    """The runner's account of its server, also of one that has ended; empty where there is none to be read."""
    try:
        state = read_json(place.state_file)
    except (ValueError, OSError):
        return {}
    return state if isinstance(state, dict) else {}


def running(place: Place) -> dict[str, Any]:
    """The runner's account of the server that runs now; empty where none does, whatever an old file says."""
    state = account(place)
    return state if process.alive(state.get("runner_pid"), state.get("runner_start")) else {}


def observe(
    place: Place,
    last: Mapping[str, Any] | None,
    want: Wanted | None,
    *,
    former: Place | None = None,
    keep_enabled: bool = False,
) -> Observed:
    """Read record, files, unit and process of the instance.

    ``former`` is the place under the recorded manager where another is wanted; ``keep_enabled``: whether the unit
    starts with the host is to stay as it is. Raises ManagerError.
    """
    spec = want.record["spec"] if want else (last or {}).get("spec")
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
        former_active=bool(former and last and former.manager.observe(unit(former, last["spec"])).active),
        running_launch=now.get("launch"),
        ready=bool(now.get("ready")) or not now,
        ended=(now.get("exit") or {}).get("status"),
        replaced=tuple(replaced(now, want.record if want else {})),
    )


def replaced(state: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    """The files that are not the ones any more which the running server has opened, by the runner's account of it.

    What a record has a digest of, the model and the image, is another file when its inode is: their content is looked
    after by the digest, and a touch must not have 200 GB loaded anew. A missing file is for others to report.
    """
    known = [file["path"] for file in (value.get("model") or {}).get("files") or ()]
    known.append((value.get("spec") or {}).get("image"))
    found = []
    for path, was in (state.get("files") or {}).items():
        now = runner.stamp(path)
        if was and now and (was[:1] != now[:1] if path in known else was != now):
            found.append(path)
    return found
