# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that bring an instance to its desired state, each with its reason: a pure function.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._host.manager import MANAGERS, UnitState
from .._result import Action, Problem, Refusal
from .._spec.options import NOT_NOTICED
from .._spec.record import Record
from .._spec.render import Wanted

# Every file that the collection writes holds this; a hand-written run.sh does not.
MARK = b"gpufleet.llamacpp"


@dataclass(frozen=True)
class Step(Action):
    """One action and the kind of work it is: path and content of a file, whether a unit starts with the host."""

    kind: str
    path: str = ""
    content: bytes = b""
    enabled: bool = True


@dataclass(frozen=True)
class Observed:
    """What is there. Everything in it was read from the host; nothing was changed to get it.

    ``former_active``: it runs under the recorded manager, where another one is wanted; ``unit`` is the wanted one's.
    ``ready``: whether the running launch has been ready since its start; ``ended``: the exit status of a server whose
    runner waits before its next start; ``replaced``: files that were replaced since the server opened them.
    """

    record: Record | None = None
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    folder_exists: bool = False
    unit: UnitState = UnitState()
    unit_differences: tuple[str, ...] = ()
    former_active: bool = False
    running_launch: str | None = None
    ready: bool = True
    ended: int | None = None
    replaced: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether the instance runs, under whatever manager."""
        return self.unit.active or self.former_active


def changes(before: Record, after: Record) -> list[str]:
    """Each difference between two records that a running server would notice, in words."""
    found = []
    old, new = before.spec.as_dict(), after.spec.as_dict()
    # The manager is compared by what "auto" came to; the user matters only to a manager that becomes that user.
    becomes_user = MANAGERS[after.manager].runs_as(after.spec.user) is not None
    skipped = {"manager", *NOT_NOTICED} | (set() if becomes_user else {"user"})
    found += [
        f"{key}: {_show(old[key])} -> {_show(new[key])}" for key in new if key not in skipped and old[key] != new[key]
    ]
    for key, was, now in (("image", before.image, after.image), ("model", before.model, after.model)):
        if was and now and was.sha256 and now.sha256 and was.sha256 != now.sha256 and old[key] == new[key]:
            found.append(f"{key} file replaced: sha256 {was.sha256[:12]} -> {now.sha256[:12]}")
    if not found and before.launch.argv != after.launch.argv:
        found.append("the container's command changed (see --diff)")
    if not found and before.launch.env != after.launch.env:
        found.append("the environment of the container's command changed")
    return found


def _show(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "not set"
    if isinstance(value, list):
        return shlex.join(str(item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def manager_change(wanted: Wanted, observed: Observed) -> str | None:
    """The change of the manager in words, or None."""
    before, after = (observed.record or wanted.record).manager, wanted.record.manager
    return None if before == after else f"manager: {before} -> {after}"


def restart_reason(wanted: Wanted, observed: Observed) -> str | None:
    """Why the server has to be started again, or None where the right one runs."""
    if not observed.active:
        return "it is not running"
    if observed.unit.orphaned:
        return observed.unit.detail
    moved = manager_change(wanted, observed)
    if moved:
        return moved
    if observed.running_launch == wanted.record.launch.id:
        if observed.ended is not None:
            return f"it ended with exit status {observed.ended}, and is down"
        return f"replaced since it was started: {', '.join(observed.replaced)}" if observed.replaced else None
    if observed.record is None:
        return "what runs is not what is wanted, and there is no record of it"
    different = changes(observed.record, wanted.record)
    if different:
        return "; ".join(different)
    return f"the running process has launch {observed.running_launch or 'unknown'}, from before the last change"


def _files(wanted: Wanted, observed: Observed) -> list[Step]:
    steps = []
    for path, content in wanted.files.items():
        name = path.rpartition("/")[2]
        now = observed.files.get(path)
        if now is None:
            steps.append(Step(f"Create {name}", f"{name} is not there", "write", path, content))
        elif now != content:
            steps.append(Step(f"Update {name}", f"{name} differs", "write", path, content))
    return steps


def _record(wanted: Wanted, observed: Observed) -> list[Step]:
    if observed.record is None:
        return [Step("Create instance.json", "instance.json is not there", "record")]
    before, after = observed.record, wanted.record
    if before.asks_the_same(after):
        return []
    why = changes(before, after)
    old, new = before.spec.as_dict(), after.spec.as_dict()
    why += [f"{key}: {_show(old[key])} -> {_show(new[key])}" for key in NOT_NOTICED if old[key] != new[key]]
    was, now = before.gate or {}, after.gate or {}
    shown = [(key, _show(was.get(key)), _show(now[key])) for key in now]
    why += [f"gate {key}: {one} -> {other}" for key, one, other in shown if one != other]
    why = why or ["what the instance means on this host changed"]
    return [Step("Update instance.json", manager_change(wanted, observed) or "; ".join(why), "record")]


def _unit(wanted: Wanted, observed: Observed, enabled: bool) -> list[Step]:
    if not observed.unit.installed:
        what = f"Install the unit ({wanted.record.manager})"
        why = "; ".join(filter(None, ["the unit is not there", wanted.manager_why]))
        return [Step(what, why, "install_unit", enabled=enabled)]
    why = "; ".join(observed.unit_differences)
    if not why and enabled and not observed.unit.enabled:
        why = "it would not start at boot"
    return [Step("Update the unit", why, "install_unit", enabled=enabled)] if why else []


def _in_place(wanted: Wanted, observed: Observed, enabled: bool) -> list[Step]:
    """Folder, files, record and unit. ``enabled``: whether the unit is to start with the host."""
    foreign = [path for path, now in observed.files.items() if now is not None and MARK not in now]
    if foreign and observed.record is None:
        raise Refusal(
            [
                Problem(
                    "name",
                    f"{path} was not written by this collection and would be lost",
                    "Move it away, or choose another name.",
                    path=path,
                )
                for path in foreign
            ]
        )
    steps = []
    if not observed.folder_exists:
        steps.append(Step(f"Create the folder {wanted.folder}", f"{wanted.folder} is not there", "make_folder"))
    steps += _files(wanted, observed)
    unit, note, moved = _unit(wanted, observed, enabled), _record(wanted, observed), manager_change(wanted, observed)
    if observed.record is None or moved is None:
        return [*steps, *note, *unit]
    # The old unit goes last of what can fail. As long as it is there, the record has to name its manager.
    old = Step(f"Stop and remove the unit of {observed.record.manager}", moved, "remove_unit")
    return [*steps, *unit, old, *note]


def _present(wanted: Wanted, observed: Observed) -> list[Step]:
    moved = manager_change(wanted, observed)
    if moved and observed.former_active:
        raise Refusal(
            [
                Problem(
                    "state",
                    f"{moved}: the instance runs, and state present stops nothing",
                    "Use state started, or stop it first.",
                )
            ]
        )
    # A unit that starts at boot would be a start, only later; so that stays as it is.
    return _in_place(wanted, observed, observed.unit.enabled)


def _started(wanted: Wanted, observed: Observed, restart: bool) -> list[Step]:
    steps = _in_place(wanted, observed, enabled=True)
    why = restart_reason(wanted, observed)
    if why is None and restart:
        why = "state is restarted"
    release = observed.record.release if observed.record else None
    if why is not None:
        verb = "Restart" if observed.active else "Start"
        steps.append(Step(f"{verb} llama-server and prove that it works", why, "start"))
    elif not release or release.setup.launch.id != wanted.record.launch.id:
        steps.append(Step("Prove that llama-server works", "it runs, and was never proven", "prove"))
    elif not observed.ready:
        steps.append(Step("Prove that llama-server works", "it was started, and is not ready yet", "prove"))
    return steps


def _stopped(observed: Observed) -> list[Step]:
    steps = []
    if observed.unit.active:
        steps.append(Step("Stop llama-server", "it is running", "stop"))
    if observed.unit.enabled:
        steps.append(Step("Disable the unit", "it would start at boot", "install_unit", enabled=False))
    return steps


def _absent(observed: Observed, folder: str) -> list[Step]:
    steps = []
    if observed.unit.active:
        steps.append(Step("Stop llama-server", "it is running", "stop"))
    if observed.unit.installed:
        steps.append(Step("Remove the unit", "the unit is there", "remove_unit"))
    if observed.folder_exists:
        steps.append(Step(f"Remove the folder {folder}", f"{folder} is there", "remove"))
    return steps


def decide(state: str, wanted: Wanted | None, observed: Observed, folder: str) -> list[Step]:
    """The steps, in order, that bring the instance to ``state``; none where it is there already. No I/O.

    ``wanted`` is needed for present, started and restarted. Raises Refusal where the state forbids what is needed.
    """
    if state == "absent":
        return _absent(observed, folder)
    if state == "stopped":
        return _stopped(observed)
    if wanted is None:
        raise ValueError(f"state {state} needs a whole spec")
    if state == "present":
        return _present(wanted, observed)
    return _started(wanted, observed, restart=state == "restarted")


def kinds(steps: Sequence[Step]) -> set[str]:
    """The kinds of step in a plan."""
    return {step.kind for step in steps}
