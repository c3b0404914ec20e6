# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done so that the host has the instance as wanted: a pure function, each step with its reason.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Action

# The steps that apply knows, in the order in which they may stand in a plan.
ORDER = (
    "pull_image",
    "make_folder",
    "stop",
    "remove_unit",
    "write",
    "install_unit",
    "disable",
    "start",
    "prove",
    "remove",
)


@dataclass(frozen=True)
class Step(Action):
    """One action and the kind of work it is; path and content for files."""

    kind: str
    path: str = ""
    content: bytes = b""


@dataclass(frozen=True)
class Wanted:
    """What should be there, rendered whole: the record, and every file of the instance's folder."""

    record: Mapping[str, Any]
    files: Mapping[str, bytes]
    folder: str
    pull_reason: str | None = None


@dataclass(frozen=True)
class Observed:
    """What is there. Everything in it was read from the host; nothing was changed to get it."""

    record: Mapping[str, Any] | None = None
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    folder_exists: bool = False
    unit_installed: bool = False
    unit_enabled: bool = False
    unit_active: bool = False
    unit_differences: tuple[str, ...] = ()
    running_launch: str | None = None
    health: int | None = None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Each difference between two records that a running server would notice, in words."""
    found = []
    old, new = before["spec"], after["spec"]
    for key in new:
        if old.get(key) != new[key] and key not in ("manager", "user"):
            found.append(f"{key}: {_show(old.get(key))} -> {_show(new[key])}")
    for key in ("image", "model"):
        was, now = _digest(before, key), _digest(after, key)
        if was and now and was != now and old.get(key) == new.get(key):
            found.append(f"{key} file replaced: sha256 {was[:12]} -> {now[:12]}")
    if not found and before["launch"]["argv"] != after["launch"]["argv"]:
        found.append("the container's command changed (see --diff)")
    return found


def _digest(value: Mapping[str, Any], key: str) -> str | None:
    return (value.get(key) or {}).get("sha256")


def _show(value: Any) -> str:
    if value is None or value == [] or value == {} or value == ():
        return "not set"
    if isinstance(value, (list, tuple)):
        return shlex.join(str(item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def restart_reason(wanted: Wanted, observed: Observed) -> str | None:
    """Why the server has to be started anew, or None where the right one runs."""
    if not observed.unit_active:
        return "it is not running"
    if observed.running_launch == wanted.record["launch"]["id"]:
        return None
    if observed.record is None:
        return "what runs was not started by this collection"
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
            steps.append(Step(f"create {name}", "it is not there", "write", path, content))
        elif now != content:
            steps.append(Step(f"update {name}", "its content differs", "write", path, content))
    return steps


def _record(wanted: Wanted, observed: Observed) -> list[Step]:
    if observed.record is None:
        return [Step("create instance.json", "it is not there", "write", record.path(wanted.folder))]
    if record.same_wish(observed.record, wanted.record):
        return []
    why = "; ".join(changes(observed.record, wanted.record)) or "what the instance means on this host changed"
    return [Step("update instance.json", why, "write", record.path(wanted.folder))]


def _present(wanted: Wanted, observed: Observed) -> list[Step]:
    steps = []
    if wanted.pull_reason:
        steps.append(Step("pull the image", wanted.pull_reason, "pull_image"))
    if not observed.folder_exists:
        steps.append(Step(f"create folder {wanted.folder}", "it is not there", "make_folder"))
    if observed.record and observed.record["manager"] != wanted.record["manager"]:
        why = f"manager: {observed.record['manager']} -> {wanted.record['manager']}"
        steps.append(Step("stop and remove the old unit", why, "remove_unit"))
    steps += _files(wanted, observed) + _record(wanted, observed)
    if not observed.unit_installed:
        steps.append(Step(f"install the unit ({wanted.record['manager']})", "it is not there", "install_unit"))
    elif observed.unit_differences:
        steps.append(Step("update the unit", "; ".join(observed.unit_differences), "install_unit"))
    return steps


def _started(wanted: Wanted, observed: Observed, restart: bool) -> list[Step]:
    steps = _present(wanted, observed)
    if observed.unit_installed and not observed.unit_enabled:
        steps.append(Step("enable the unit", "it would not start at boot", "install_unit"))
    why = restart_reason(wanted, observed)
    if why is None and restart:
        why = "state is restarted"
    if why is None and any(step.kind == "remove_unit" for step in steps):
        why = "its manager changed"
    if why is not None:
        verb = "restart" if observed.unit_active else "start"
        steps.append(Step(f"{verb} llama-server and prove that it works", why, "start"))
    elif (observed.record or {}).get("release") is None:
        steps.append(Step("prove that it works and record the release", "it runs, but was never proven", "prove"))
    return steps


def _stopped(observed: Observed) -> list[Step]:
    steps = []
    if observed.unit_active:
        steps.append(Step("stop llama-server", "it is running", "stop"))
    if observed.unit_enabled:
        steps.append(Step("disable the unit", "it would start at boot", "disable"))
    return steps


def _absent(observed: Observed, folder: str) -> list[Step]:
    steps = []
    if observed.unit_active:
        steps.append(Step("stop llama-server", "it is running", "stop"))
    if observed.unit_installed:
        steps.append(Step("remove the unit", "it is there", "remove_unit"))
    if observed.folder_exists:
        steps.append(Step(f"remove folder {folder}", "it is there", "remove"))
    return steps


def decide(state: str, wanted: Wanted | None, observed: Observed, folder: str) -> list[Step]:
    """The steps, in order, that bring the instance to ``state``; none where it is there already. No I/O.

    ``wanted`` is needed for present, started and restarted.
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


def subjects(steps: Sequence[Step]) -> set[str]:
    """The kinds of step in a plan."""
    return {step.kind for step in steps}
