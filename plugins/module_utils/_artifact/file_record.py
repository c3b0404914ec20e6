# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a verified file: its sha256 when it was last read, and the stat that proves that it did not change.

Private to gpufleet.llamacpp; may change at any time.

Reading 200 GB to learn that nothing changed takes minutes. So the sha256 is kept in a small JSON file, in a hidden
folder beside the file, together with the stat that the file had. While the stat is the same, so is the sha256.
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
from .._result import OperatorError, Problem

READ_BYTES = 4 << 20
# The coarsest time stamps of a file system (FAT; ext3 and NFS: 1 s). A file that was written within this time before it
# was read may have been written again in the same tick, and its stat does not show that (git's "racy" rule).
TICK_NS = 2_000_000_000


class FileChanged(OperatorError):
    """The file was written to while it was being read."""

    def __init__(self, path: str) -> None:
        text = f"{path} was written to while it was being read"
        super().__init__(Problem("", text, "Run this again when nothing writes to it.", path))


@dataclass(frozen=True)
class FileRecord:
    """One verified file. The device number is left out: it differs between the hosts that mount one file system."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str
    source: dict[str, Any]  # where it came from: {"url": ...} or {"src": ...}, without secrets
    recorded_ns: int = 0  # when the content was last known to be this, in ns since 1970
    details: dict[str, Any] = field(default_factory=dict)  # what the caller learned from the content

    @property
    def stamp(self) -> list[int]:
        """The stat of the recorded file, as stamp() returns it."""
        return [self.size, self.mtime_ns, self.ctime_ns, self.inode]


def stamp_of(status: os.stat_result) -> list[int]:
    """What identifies a state of a file without reading it: size, mtime and ctime (ns), inode."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def stamp(path: str) -> list[int] | None:
    """The stamp of the file; None where it cannot be looked at, as where there is none."""
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def record_path(path: str, folder: str) -> str:
    """The path of the record of ``path``: in ``folder``, which is in the folder of the file."""
    return os.path.join(os.path.dirname(path), folder, os.path.basename(path) + ".json")


def recorded(path: str, folder: str) -> FileRecord | None:
    """The record of the file, if there is one and the file did not change since.

    A record counts as none if it is damaged or unreadable, has another stat, or was made too soon after the file was
    written. The file has to be read again then, which repairs the record. Reads only the record. Raises nothing.
    """
    found = last_record(path, folder)
    return found if found is not None and is_current(path, found) else None


def is_current(path: str, found: FileRecord) -> bool:
    """Whether the file still has the recorded stat, and had it long enough before it was read."""
    return stamp(path) == found.stamp and found.mtime_ns < found.recorded_ns - TICK_NS


def last_record(path: str, folder: str) -> FileRecord | None:
    """The record as it was written, whether the file changed since or not; None where there is no sound one."""
    try:
        content = read_json(record_path(path, folder)) or {}
        # A digest with a wrong digit is still a digest.
        if content.pop("checksum", None) != _checksum(content):
            return None
        found = FileRecord(**content)
    except (AttributeError, OSError, ValueError, TypeError):
        return None
    sound = (
        all(isinstance(number, int) for number in (*found.stamp, found.recorded_ns))
        and is_sha256(found.sha256)
        and isinstance(found.source, dict)
        and isinstance(found.details, dict)
    )
    return found if sound else None


def is_sha256(value: object) -> bool:
    """Whether this is a sha256 in the form that is kept and compared: 64 lower-case hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def hash_file(path: str) -> str:
    """The sha256 of a file's content. Raises FileChanged if it is written to meanwhile, and OSError."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileChanged(path)
    return digest.hexdigest()


def settle(path: str) -> None:
    """Set the mtime of a file that was just written back by 4 s, so that its record is trusted at once.

    Any later write gives the file a time that differs from the recorded one, however coarse the clock is. Call it only
    for a file of our own whose content is known, and before it is recorded. Raises OSError.
    """
    status = os.stat(path)
    past = min(status.st_mtime_ns, time.time_ns()) - 2 * TICK_NS
    os.utime(path, ns=(status.st_atime_ns, past))


def record(
    path: str,
    folder: str,
    sha256: str,
    source: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    known_since_ns: int | None = None,
) -> FileRecord:
    """Record the content of the file. ``known_since_ns``: when the reading that gave ``sha256`` began (default: now).

    Set owner, mode and labels of the file before: they change its ctime. Raises OSError.
    """
    status = os.stat(path)
    made = FileRecord(
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        sha256=sha256,
        source=dict(source),
        recorded_ns=time.time_ns() if known_since_ns is None else known_since_ns,
        details=dict(details or {}),
    )
    place = record_path(path, folder)
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    write_json(place, {**vars(made), "checksum": _checksum(vars(made))})
    return made


def _checksum(content: Mapping[str, Any]) -> str:
    """Detects a record that a disk has damaged. It is no protection against a person."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def forget(path: str, folder: str) -> None:
    """Remove the record, and its folder if that is empty then. Raises OSError."""
    place = record_path(path, folder)
    remove(place)
    try:
        os.rmdir(os.path.dirname(place))
    except OSError:
        return  # it holds other records, or there is none
