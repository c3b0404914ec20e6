# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of the host, read from /proc. A pid alone identifies nothing; with the start time it does.

Private to gpufleet.llamacpp; may change at any time. Fields: proc(5).
"""

from __future__ import annotations

import os
import pwd
import re
import select
import time
from collections.abc import Iterator


def start_ticks(pid: int) -> int | None:
    """The start of the process in clock ticks since boot (field 22 of /proc/PID/stat); None if there is no process.

    A zombie counts as none.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def parent_of(pid: int) -> int | None:
    """The parent's pid; None if the process is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the third field on; None if there is no process, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The command in parentheses may contain anything, so the fields are counted from the last one.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields


def alive(pid: int | None, ticks: int | None) -> bool:
    """Whether this same process still runs; a reused pid has other ticks."""
    return pid is not None and ticks is not None and start_ticks(pid) == ticks


def wait_for_end(pid: int, timeout: float) -> None:
    """Return when the process ends, or after ``timeout`` seconds; at once if there is no such process.

    Needs pidfd_open: Linux 5.3, and a Python that was built there. Otherwise this always takes the timeout.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):
        time.sleep(timeout)
        return
    try:
        select.select([handle], [], [], timeout)
    finally:
        os.close(handle)


def uptime(pid: int) -> float | None:
    """Seconds since the process started; None if it is gone."""
    ticks = start_ticks(pid)
    if ticks is None:
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def command(pid: int) -> list[str]:
    """The arguments that the process was started with; empty if it is gone or a kernel thread."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            data = file.read()
    except OSError:
        return []
    return [os.fsdecode(part) for part in data.split(b"\0")[:-1]]


# Options whose values must not appear in a log, such as --api-key.
SECRET = re.compile(r"(--?[\w-]*(?:key|token|password|secret))([= ])\S+")


def shown_command(pid: int, length: int) -> str:
    """The command line for a message: at most ``length`` characters, secrets masked."""
    return SECRET.sub(r"\1\2********", " ".join(command(pid)))[:length]


def user_name(uid: int) -> str:
    """The user's name, or the number if it has no name here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner(pid: int) -> str | None:
    """Name of the user that the process runs as; None if it is gone."""
    try:
        return user_name(os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return None


def pids() -> Iterator[int]:
    """Every process that this user can see."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)
