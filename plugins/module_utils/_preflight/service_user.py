# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user of a system unit: does it exist, and can it read what the server needs?

Private to gpufleet.llamacpp; may change at any time. Without root the server runs as the user who deploys, and the
other checks report what that user cannot read.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Iterator, Sequence

from .._result import Problem


def check_user(user: str | None) -> list[Problem]:
    """Whether the user exists; None is the user who deploys."""
    if user is None:
        return []
    try:
        pwd.getpwnam(user)
    except KeyError:
        remedy = (
            "Create it as a system user (the role gpufleet.llamacpp.llamacpp_host does this), or name another user."
        )
        return [Problem("user", f"this host has no user {user}, which the server is to run as", remedy)]
    return []


def check_access(user: str | None, paths: Sequence[str]) -> list[Problem]:
    """Whether the user can read these files and folders, as far as they exist: a problem for each obstacle."""
    if user is None or os.geteuid() != 0:
        return []
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return []
    group = grp.getgrgid(entry.pw_gid).gr_name
    behind: dict[str, list[str]] = {}
    for path, closed in _ask_as(entry, [path for path in dict.fromkeys(paths) if os.path.exists(path)]):
        behind.setdefault(closed, []).append(path)
    return [_problem(user, group, closed, found) for closed, found in behind.items()]


def _problem(user: str, group: str, closed: str, paths: Sequence[str]) -> Problem:
    found = os.stat(closed)
    mode = f"{stat.filemode(found.st_mode)} {_name(found.st_uid)}"
    if paths == [closed]:
        text = f"{user}, which the server runs as, cannot read {closed} ({mode})"
        remedy = f"Allow it (chgrp {group} {closed}; chmod g+rX {closed}), or name another user."
    else:
        text = f"{user}, which the server runs as, cannot enter {closed} ({mode}), so it cannot read {', '.join(paths)}"
        remedy = f"Allow it (chmod o+x {closed}), move the files, or name another user."
    return Problem("user", text, remedy, closed)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _ask_as(entry: pwd.struct_passwd, paths: Sequence[str]) -> list[tuple[str, str]]:
    """The paths that the user cannot read, each with the obstacle.

    A child process becomes the user and asks the kernel: mode bits are not enough, there are ACLs and NFS root_squash.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
            found = [(path, closed) for path in paths if (closed := next(_obstacles(path), None))]
            with os.fdopen(write, "w", encoding="utf-8") as pipe:
                json.dump(found, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    read_back: list[tuple[str, str]] = json.loads(answer or "[]")
    return read_back


def _obstacles(path: str) -> Iterator[str]:
    """The folders above the path that the caller cannot enter, from the root on; the path, if it cannot be read."""
    # os.access follows links, so the folders above a link's target count too.
    folders = [path[:at] or "/" for at, letter in enumerate(path) if letter == "/"]
    yield from (folder for folder in folders if not os.access(folder, os.X_OK))
    if not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
        yield path
