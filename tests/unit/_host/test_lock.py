# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock between real processes: one holder at a time, named to the others, and released at its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import lock

HOLDER = """
import os, subprocess, sys, time
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import lock
with lock.hold(sys.argv[1], "bringing x to started", 5):
    if len(sys.argv) > 2:
        # Not waited for: it outlives us, and must not hold what we held.
        print(subprocess.Popen(["sleep", "100"], stdout=subprocess.DEVNULL).pid, flush=True)
    else:
        print("held", flush=True)
    sys.stdin.read()
"""


def start(path: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"},
    )
    return process


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock, until its input ends."""
    process = start(tmp_path / "lock")
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_nothing_is_left(tmp_path: Path) -> None:
    with lock.hold(str(tmp_path / "home/lock"), "a test", 0):
        assert (tmp_path / "home/lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_in_use_stays(tmp_path: Path) -> None:
    with lock.hold(str(tmp_path / "home/lock"), "a test", 0):
        (tmp_path / "home/file").touch()
    assert [entry.name for entry in (tmp_path / "home").iterdir()] == ["file"]


def test_a_refusal_names_the_holder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(lock.Locked) as error, lock.hold(str(tmp_path / "lock"), "a test", 0.3):
        pass
    said = str(error.value)
    assert f"pid {holder.pid} of {lock.user_name(os.getuid())} from 10.0.0.1, since 20" in said
    assert "bringing x to started" in said
    assert (tmp_path / "lock").exists()


def test_a_second_run_waits(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    second = start(tmp_path / "lock")
    time.sleep(0.3)
    assert second.poll() is None
    assert holder.stdin and second.stdout and second.stdin
    holder.stdin.close()
    assert second.stdout.readline() == "held\n"
    second.communicate("")


def test_it_ends_with_its_holder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with lock.hold(str(tmp_path / "lock"), "a test", 5):
        pass


def test_a_child_of_the_holder_does_not_inherit_the_lock(tmp_path: Path) -> None:
    first = start(tmp_path / "lock", "and leave a child")
    assert first.stdout
    child = int(first.stdout.readline())
    first.kill()
    first.communicate()
    try:
        with lock.hold(str(tmp_path / "lock"), "a test", 0):
            pass
    finally:
        os.kill(child, 9)


def test_a_respawned_module_has_the_lock_of_its_first_process(tmp_path: Path) -> None:
    """As ansible.module_utils.common.respawn does: the module is a child of itself, which waits."""
    path = tmp_path / "lock"
    with lock.hold(str(path), "a test", 0):
        moved = start(path)
        assert moved.stdout and moved.stdout.readline() == "held\n"
        moved.communicate("")
        assert path.exists()
    assert not path.exists()


def test_a_lock_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    mute = subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert mute.stdout and mute.stdout.readline()
    try:
        with pytest.raises(lock.Locked, match="an unknown process"), lock.hold(str(path), "x", 0):
            pass
    finally:
        mute.kill()
        mute.communicate()
