# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file on the host, as it was seen: its stat, its record, its content if that had to be read. Changes nothing.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .._result import Problem
from .file_record import FileRecord, hash_file, is_current, last_record, stamp_of


@dataclass(frozen=True)
class SeenFile:
    """A file, or the absence of one. ``problems``: why it is of no use."""

    path: str
    exists: bool = False
    is_file: bool = False  # a regular file that can be looked at; not a folder, a device
    size: int = 0
    stamp: tuple[int, ...] = ()  # identifies this state of the file without reading it
    problems: tuple[Problem, ...] = ()
    record: FileRecord | None = None  # the last one, current or not
    trusted: bool = False  # the record is current
    sha256: str | None = None  # recorded and current, or read now
    read_since_ns: int | None = None  # when the reading began, if it was read now

    @property
    def is_unusable(self) -> bool:
        """Whether something is there that no run replaces: a folder, a device, a file that cannot be looked at."""
        return self.exists and not self.is_file

    @property
    def source(self) -> Mapping[str, Any]:
        """Where this content came from, by the record; empty if the record is of other content."""
        same = self.record is not None and self.sha256 in (None, self.record.sha256)
        return self.record.source if self.record and same else {}

    @property
    def details(self) -> Mapping[str, Any]:
        """What was learned of this content before; empty if the record is of other content."""
        same = self.record is not None and self.sha256 == self.record.sha256
        return self.record.details if self.record and same else {}

    @property
    def known_since_ns(self) -> int | None:
        """When the content was last known to be this, in ns since 1970."""
        return self.read_since_ns or (self.record.recorded_ns if self.record else None)


Seen = TypeVar("Seen", bound=SeenFile)


def see(path: str, records: str, what: str) -> SeenFile:
    """The file by its stat and its record; ``what`` it has to be, such as "a SIF file". Reads no content."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return SeenFile(path)
    except OSError as error:
        return SeenFile(path, exists=True, problems=(unreadable(path, error.strerror),))
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        return SeenFile(path, exists=True, problems=(Problem("", f"{path} is {found}", f"Name {what}.", path),))
    record = last_record(path, records)
    trusted = record is not None and is_current(path, record)
    return SeenFile(
        path,
        exists=True,
        is_file=True,
        size=status.st_size,
        stamp=tuple(stamp_of(status)),
        record=record,
        trusted=trusted,
        sha256=record.sha256 if record and trusted else None,
    )


def with_sha256(seen: Seen) -> Seen:
    """The same file with the sha256 of its content, which is read. Raises FileChanged and OSError."""
    since = time.time_ns()
    return replace(seen, sha256=hash_file(seen.path), read_since_ns=since)


def unreadable(path: str, why: str | None) -> Problem:
    """The problem of a file that this user may not read."""
    text = f"{path} cannot be read ({why})"
    return Problem("", text, f"Let the user {os.geteuid()}, which runs this task, read it.", path)


def is_same(one: str, other: str) -> bool:
    """Whether both paths are one file."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def not_recorded(path: str, error: OSError) -> str:
    """The warning that a file could not be recorded, which costs only time."""
    return (
        f"{path} could not be recorded as verified ({error.strerror}), so the next run reads it again. The folder "
        f"{os.path.dirname(path)} has to be writable for the user {os.geteuid()}."
    )
