# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock between runs. It names its holder, and ends when its holder ends.

Private to gpufleet.llamacpp; may change at any time. It is flock(2) on a file that exists only while the lock is held.
On a network file system it may cover one host only. That is enough, because an instance belongs to one host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator

from .._result import OperatorError, Problem
from .process import user_name

RETRY_SECONDS = 0.2


class Locked(OperatorError):
    """Another run has the lock."""


@contextlib.contextmanager
def hold(path: str, what: str, timeout: float) -> Iterator[None]:
    """Hold the lock at ``path``. ``what`` says to other runs what this one does. Waits at most ``timeout`` seconds.

    Raises Locked if another run keeps the lock for longer, and OSError.
    """
    folder = os.path.dirname(path)
    made = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        handle = _take(path, timeout)
        try:
            if handle is not None:
                _write_holder(handle, what)
            yield
        finally:
            if handle is not None:
                # Removed before it is released: afterwards, another run could hold a lock on a file that is deleted.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                os.close(handle)
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty, so it was needed
                os.rmdir(folder)


def _take(path: str, timeout: float) -> int | None:
    """A descriptor that has the lock; programs that are started here do not inherit it.

    None if the parent process has the lock: when a module respawns in the host's Python environment, its first process
    keeps the lock and waits.
    """
    deadline = time.monotonic() + timeout
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
            os.close(handle)
            continue
        except BlockingIOError:
            os.close(handle)
        holder = _holder(path)
        if holder.get("pid") == os.getppid():
            return None
        if time.monotonic() >= deadline:
            raise Locked(_problem(path, holder, timeout))
        time.sleep(min(RETRY_SECONDS, timeout))


def _is_at(handle: int, path: str) -> bool:
    """Whether the open file still has this path: its last holder may have removed it."""
    mine = os.fstat(handle)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _write_holder(handle: int, what: str) -> None:
    """Write the holder into the lock."""
    holder = {
        "pid": os.getpid(),
        "user": user_name(os.getuid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "what": what,
        # "client port server port", ssh(1). The client is the operator's machine.
        "from": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(holder) + "\n").encode(), 0)


def _holder(path: str) -> dict[str, object]:
    """The holder as it wrote itself into the lock; empty before it has written, and after it has gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _problem(path: str, holder: dict[str, object], timeout: float) -> Problem:
    who = "an unknown process"
    if holder:
        where = f" from {holder['from']}" if holder.get("from") else ""
        pid, user, since, what = (holder.get(key) for key in ("pid", "user", "since", "what"))
        who = f"pid {pid} of {user}{where}, since {since}, {what}"
    return Problem(
        "",
        f"Another run is at work: {path} was not released within {timeout:.0f} s. Its holder is {who}",
        "Wait for that run to end, then run this again. If it hangs, end its process; the lock ends with it.",
    )
