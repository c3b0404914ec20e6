# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a verified file: what its content was when it was last read, and how to see that it still is.

Private to gpufleet.llamacpp; may change at any time.

Reading 200 GB to learn that nothing changed takes minutes. So the sha256 is kept in a small JSON file, in a hidden
folder beside the file, together with the stat that the file had. While the stat is the same, the sha256 is too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._host.files import read_json, remove, write_json

READ_BYTES = 4 << 20
# File systems stamp times as coarsely as this (FAT; ext3 and NFS: 1 s). A file that was written within this time before
# it was read may have been written again in the same tick, with nothing in its stat to show for it (git's "racy" rule).
TICK_NS = 2_000_000_000


class FileChanged(Exception):
    """Somebody wrote to the file while it was being read. The message is a sentence for the operator."""


@dataclass(frozen=True)
class Identity:
    """One verified file. The device number is left out: it differs between the hosts that mount one file system."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str
    source: dict[str, Any]  # where it came from: {"url": ...} or {"src": ...}, without secrets
    recorded_ns: int = 0  # when the content was last known to be this, in ns since 1970
    details: dict[str, Any] = field(default_factory=dict)  # what the caller learned from the content


def record_path(path: str, folder: str) -> str:
    """Where the record of ``path`` lies: in ``folder`` beside it."""
    return os.path.join(os.path.dirname(path), folder, os.path.basename(path) + ".json")


def recorded(path: str, folder: str) -> Identity | None:
    """The record of the file, if there is one and the file is still the one that was recorded.

    A record that is damaged, unreadable, of another stat, or made too soon after the file was written to tell, is none:
    the file has to be read again, which repairs it. Reads nothing but the record. Raises nothing.
    """
    identity = last_record(path, folder)
    return identity if identity is not None and is_current(path, identity) else None


def is_current(path: str, identity: Identity) -> bool:
    """Whether the file still has the stat that was recorded, and had it long enough to be sure."""
    try:
        stat = os.stat(path)
    except OSError:
        return False
    same = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) == (
        identity.size,
        identity.mtime_ns,
        identity.ctime_ns,
        identity.inode,
    )
    return same and identity.mtime_ns < identity.recorded_ns - TICK_NS


def last_record(path: str, folder: str) -> Identity | None:
    """The record as it was written, whether the file is still the same or not; None where there is no sound one."""
    try:
        content = read_json(record_path(path, folder)) or {}
        # A digest with a wrong digit is still a digest.
        if content.pop("checksum", None) != _checksum(content):
            return None
        identity = Identity(**content)
    except (AttributeError, OSError, ValueError, TypeError):
        return None
    numbers = (identity.size, identity.mtime_ns, identity.ctime_ns, identity.inode, identity.recorded_ns)
    sound = (
        all(isinstance(number, int) for number in numbers)
        and is_sha256(identity.sha256)
        and isinstance(identity.source, dict)
        and isinstance(identity.details, dict)
    )
    return identity if sound else None


def is_sha256(value: object) -> bool:
    """Whether this is a sha256 as it is kept and compared here: 64 lower-case hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def hash_file(path: str) -> str:
    """The sha256 of a file's content. Raises FileChanged if it is written to meanwhile, OSError if it is unreadable."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileChanged(f"{path} was written to while it was being read. Try again when nobody writes to it.")
    return digest.hexdigest()


def settle(path: str) -> None:
    """Set a file that was just written a little back in time, so that its record can be trusted at once.

    Any write from now on gives the file a time that differs from the recorded one, however coarse the clock. Only for a
    file of our own whose content is known, and before it is recorded. Raises OSError.
    """
    stat = os.stat(path)
    past = min(stat.st_mtime_ns, time.time_ns()) - 2 * TICK_NS
    os.utime(path, ns=(stat.st_atime_ns, past))


def record(
    path: str,
    folder: str,
    sha256: str,
    source: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    known_since_ns: int | None = None,
) -> Identity:
    """Keep what the file is. ``known_since_ns``: when the reading that gave ``sha256`` began (default: now).

    Raises OSError. Owner, mode and labels of the file are set before this: they move its ctime.
    """
    stat = os.stat(path)
    identity = Identity(
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        ctime_ns=stat.st_ctime_ns,
        inode=stat.st_ino,
        sha256=sha256,
        source=dict(source),
        recorded_ns=time.time_ns() if known_since_ns is None else known_since_ns,
        details=dict(details or {}),
    )
    place = record_path(path, folder)
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    write_json(place, {**vars(identity), "checksum": _checksum(vars(identity))})
    return identity


def _checksum(content: Mapping[str, Any]) -> str:
    """Tells a record that a disk has damaged; against nobody's will."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def forget(path: str, folder: str) -> None:
    """Remove the record, and its folder with the last one. Raises OSError."""
    place = record_path(path, folder)
    remove(place)
    try:
        os.rmdir(os.path.dirname(place))
    except OSError:
        return  # others are in it, or it is not there
