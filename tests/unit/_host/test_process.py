# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, by real ones."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose name has what confuses readers of /proc/PID/stat."""
    code = "import ctypes,sys,time; ctypes.CDLL(None).prctl(15, b'a) Z (b'); print(flush=True); time.sleep(100)"
    started = subprocess.Popen([sys.executable, "-c", code, "a b", ""], stdout=subprocess.PIPE)
    assert started.stdout
    started.stdout.readline()
    yield started
    started.kill()
    started.wait()
    started.stdout.close()


def test_a_process_is_known_by_pid_and_start(child: subprocess.Popen[bytes]) -> None:
    ticks = process.start_ticks(child.pid)
    assert ticks
    assert process.alive(child.pid, ticks)
    assert not process.alive(child.pid, ticks + 1)
    assert process.parent_of(child.pid) == os.getpid()
    assert process.command(child.pid)[-2:] == ["a b", ""]
    assert child.pid in process.pids()
    assert process.owner(child.pid) == pwd.getpwuid(os.geteuid()).pw_name


def test_a_zombie_is_none(child: subprocess.Popen[bytes]) -> None:
    ticks = process.start_ticks(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert os.path.exists(f"/proc/{child.pid}/stat")
    assert process.start_ticks(child.pid) is None
    assert process.parent_of(child.pid) is None
    assert process.uptime(child.pid) is None
    assert not process.alive(child.pid, ticks)


def test_uptime_counts_from_the_start_of_the_process(child: subprocess.Popen[bytes]) -> None:
    ticks = process.start_ticks(child.pid)
    uptime = process.uptime(child.pid)
    assert ticks and uptime is not None
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert uptime == pytest.approx(boot - ticks / os.sysconf("SC_CLK_TCK"), abs=5)
    mine = process.uptime(1)
    assert mine is None or mine >= uptime


@pytest.mark.parametrize("pid", [2**22 + 1, 0])
def test_no_such_process(pid: int) -> None:
    assert process.start_ticks(pid) is None
    assert process.parent_of(pid) is None
    assert process.uptime(pid) is None
    assert process.command(pid) == []
    assert process.owner(pid) is None


def test_nothing_is_not_alive() -> None:
    assert not process.alive(None, 1)
    assert not process.alive(os.getpid(), None)


def test_a_user_without_a_name() -> None:
    assert process.user_name(4294967290) == "4294967290"
    assert process.user_name(0) == "root"


def test_the_end_of_a_process_is_seen_at_once(child: subprocess.Popen[bytes]) -> None:
    begin = time.monotonic()
    process.wait_for_end(child.pid, 0.1)
    assert time.monotonic() - begin >= 0.1
    child.kill()
    process.wait_for_end(child.pid, 60)
    child.wait()
    process.wait_for_end(child.pid, 60)
    assert time.monotonic() - begin < 30


def test_without_pidfd_the_wait_takes_the_timeout(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    child.kill()
    begin = time.monotonic()
    process.wait_for_end(child.pid, 0.1)
    assert time.monotonic() - begin >= 0.1
