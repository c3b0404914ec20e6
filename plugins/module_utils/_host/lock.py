# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that two runs cannot hold at once, that says who has it, and that ends with its holder.

Private to gpufleet.llamacpp; may change at any time. It is flock(2) on a file that is there only while it is held; on a
network disk it may hold for one host alone, which is enough, because so does an instance.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator

from .process import user_name

EVERY = 0.2  # s between two tries


class Held(Exception):
    """Somebody else has the lock; the message says who, since when, and what to do."""


@contextlib.contextmanager
def hold(path: str, what: str, timeout: float) -> Iterator[None]:
    """Hold the lock at ``path`` in order to do ``what``, which others are told. Waits for at most timeout seconds.

    Raises Held where somebody else has it for longer, and OSError.
    """
    folder = os.path.dirname(path)
    made = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        handle = _take(path, timeout)
        try:
            if handle is not None:
                _sign(handle, what)
            yield
        finally:
            if handle is not None:
                # Before it is let go of, so that nobody takes a lock on a file which is about to vanish.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                os.close(handle)
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty, so it was needed
                os.rmdir(folder)


def _take(path: str, timeout: float) -> int | None:
    """A descriptor that has the lock, and that no program which is started here inherits.

    None where our parent has it: a module that moves into the host's Python environment waits for us, and holds it.
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
            raise Held(_said(path, holder, timeout))
        time.sleep(min(EVERY, timeout))


def _is_at(handle: int, path: str) -> bool:
    """Whether the open file is the one that lies there now: its last holder has removed it."""
    mine = os.fstat(handle)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _sign(handle: int, what: str) -> None:
    """Write into the lock who holds it."""
    holder = {
        "pid": os.getpid(),
        "user": user_name(os.getuid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "what": what,
        # "client port server port", ssh(1); the first is where the operator sits.
        "from": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(holder) + "\n").encode(), 0)


def _holder(path: str) -> dict[str, object]:
    """What the holder wrote; empty where it has not come to that, or is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _said(path: str, holder: dict[str, object], timeout: float) -> str:
    """Who holds it, in a sentence."""
    who = "a process that has not said which"
    if holder:
        where = f" from {holder['from']}" if holder.get("from") else ""
        pid, user, since, what = (holder.get(key) for key in ("pid", "user", "since", "what"))
        who = f"pid {pid} of {user}{where}, since {since}, {what}"
    return (
        f"Another run is at work, and {path} was not free within {timeout:.0f} s. It is held by {who}. Wait for it to "
        "end and run this again; if it hangs, end that process, and its lock ends with it."
    )
