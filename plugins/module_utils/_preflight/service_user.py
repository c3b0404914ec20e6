# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user that a unit of the host runs the server as: whether it is there, and reaches what the server needs.

Private to gpufleet.llamacpp; may change at any time. Without root the server's user is ours, and what it cannot reach
we cannot either, which is told where it is read.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Iterator, Sequence


def missing(user: str | None) -> list[str]:
    """Whether the user is not there; None is the user who deploys."""
    if user is None:
        return []
    try:
        pwd.getpwnam(user)
    except KeyError:
        return [
            f"user: this host has no user {user}, whom the server is to run as. Create it as a system user (the role "
            "gpufleet.llamacpp.llamacpp_host does), or name another."
        ]
    return []


def problems(user: str | None, paths: Sequence[str]) -> list[str]:
    """What keeps the user from files and folders, one problem for each thing that does; of the paths that are there."""
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
    return [_words(user, group, closed, found) for closed, found in behind.items()]


def _words(user: str, group: str, closed: str, paths: Sequence[str]) -> str:
    found = os.stat(closed)
    mode = f"{stat.filemode(found.st_mode)} {_name(found.st_uid)}"
    if paths == [closed]:
        return (
            f"user: {user}, whom the server is to run as, may not read {closed} ({mode}). Let it do so "
            f"(chgrp {group} {closed}; chmod g+rX {closed}), or name another user."
        )
    return (
        f"user: {user}, whom the server is to run as, may not enter {closed} ({mode}), and so does not reach "
        f"{', '.join(paths)}. Let it in (chmod o+x {closed}), keep that elsewhere, or name another user."
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _ask_as(entry: pwd.struct_passwd, paths: Sequence[str]) -> list[tuple[str, str]]:
    """The paths that the user does not reach, each with what is in the way. The kernel is asked, in a child of ours

    that has become the user: modes alone do not tell, since there are lists of access and roots that are squashed.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
            told = [(path, closed) for path in paths if (closed := next(_in_the_way(path), None))]
            with os.fdopen(write, "w", encoding="utf-8") as pipe:
                json.dump(told, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    found: list[tuple[str, str]] = json.loads(said or "[]")
    return found


def _in_the_way(path: str) -> Iterator[str]:
    """The folders above the path that the caller may not enter, from the root on; the path, if it may not read that."""
    # Where a link is on the way, both the way to it and that from it have to be open.
    folders = [path[:at] or "/" for at, letter in enumerate(path) if letter == "/"]
    yield from (folder for folder in folders if not os.access(folder, os.X_OK))
    if not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
        yield path
