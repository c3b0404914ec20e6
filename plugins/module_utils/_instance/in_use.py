# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What uses a file that is about to be removed: instances by their records, and processes that have it open.

Private to gpufleet.llamacpp; may change at any time.

Of other users' processes /proc shows less, and to root everything.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence

from .._host import layout, process, runner
from .._host.files import read_bytes, read_json
from .._result import Problem
from .._spec import store
from .._spec.record import ImageFacts, ModelFacts, Setup

# What tells a file from every other one, whatever it is called in a container: device and inode.
Key = tuple[int, int]


def problems(home: str, paths: Sequence[str]) -> list[Problem]:
    """Why the files, an image or the parts of a model, should not be removed; empty where nothing uses them.

    Changes nothing.
    """
    there = [path for path in paths if os.path.isfile(path)]
    if not there:
        return []
    shown = there[0]
    found = [
        Problem(
            "path",
            f"{shown} is the {kind} {role} {name}",
            f"Deploy that with another {kind}, or remove it, with llamacpp_instance; or use force: true.",
            path=shown,
        )
        for name, kind, role in instances(home, there)
    ]
    found += [
        Problem(
            "path",
            f"{shown} is open in pid {pid} ({process.shown_command(pid, 80)}, user {process.owner(pid)})",
            "End it; or use force: true.",
            path=shown,
        )
        for pid in _strangers(home, there)
    ]
    backed = _loops(there)
    if backed and not found:
        text = f"{shown} is mounted ({', '.join(backed)}), so a container runs from it"
        found.append(Problem("path", text, "End it; or use force: true.", path=shown))
    return found


def instances(home: str, paths: Sequence[str]) -> list[tuple[str, str, str]]:
    """The instances of the home that need one of the files: name, image or model, and its role in words.

    What the last release ran counts too: without it there is no rollback.
    """
    meant = {os.path.realpath(path) for path in paths}
    found = []
    for name, record in store.others(home, "").items():
        for kind in ("image", "model"):
            if meant & set(_files(record.setup, kind)):
                found.append((name, kind, "of the instance"))
            elif record.release and meant & set(_files(record.release.setup, kind)):
                found.append((name, kind, "of the last release, which a rollback needs, of the instance"))
    return found


def _files(setup: Setup, kind: str) -> Iterator[str]:
    facts: ImageFacts | ModelFacts | None = setup.image if kind == "image" else setup.model
    parts = [part.path for part in facts.files] if isinstance(facts, ModelFacts) else []
    for path in (setup.spec.value(kind), facts.path if facts else None, *parts):
        if isinstance(path, str):
            yield os.path.realpath(path)


def _strangers(home: str, paths: Sequence[str]) -> list[int]:
    """The processes that have one of the files open and belong to none of the instances that are named anyway."""
    ours = {os.getpid()}
    for name in dict.fromkeys(name for name, dummy, dummy in instances(home, paths)):
        for folder in (layout.instance(home, name), layout.runtime(name)):
            ours |= _below(os.path.join(folder, layout.STATE))
    keys = {_key(os.stat(path)) for path in paths}
    return [pid for pid in process.pids() if pid not in ours and (keys & set(_open(pid)) or _maps(pid, paths))]


def _below(state_file: str) -> set[int]:
    """The processes of the server that a runner's account tells of, while that runner lives."""
    try:
        state = read_json(state_file)
    except (ValueError, OSError):
        return set()
    state = state if isinstance(state, dict) else {}
    pid = state.get("runner_pid")
    return {pid, *runner.below(pid)} if pid and process.alive(pid, state.get("runner_start")) else set()


def _key(status: os.stat_result) -> Key:
    return status.st_dev, status.st_ino


def _open(pid: int) -> Iterator[Key]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield _key(os.stat(os.path.join(folder, name)))
        except OSError:
            continue


def _maps(pid: int, paths: Iterable[str]) -> bool:
    """Whether the process has one of the files in its memory; its name there is the container's, but for the last part.

    The device is left out: a file system on several devices shows another one there (proc(5), /proc/PID/maps).
    """
    wanted = {(str(os.stat(path).st_ino), os.path.basename(path)) for path in paths}
    try:
        lines = (read_bytes(f"/proc/{pid}/maps") or b"").decode(errors="replace").splitlines()
    except OSError:
        return False
    mapped = (line.split(None, 5) for line in lines)
    return any(len(field) == 6 and (field[4], os.path.basename(field[5])) in wanted for field in mapped)


def _loops(paths: Iterable[str]) -> list[str]:
    """The loop devices that show one of the files: how a runtime with a setuid starter mounts an image."""
    meant = {os.path.realpath(path) for path in paths}
    found = []
    for file in glob.glob("/sys/block/loop*/loop/backing_file"):
        content = read_bytes(file) or b""
        if os.fsdecode(content.rstrip(b"\n")) in meant:
            found.append(f"/dev/{file.split('/')[3]}")
    return found
