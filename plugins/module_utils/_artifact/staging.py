# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging of one large file: the space for it, a copy that is hashed on the way, and the rename to its place.

Private to gpufleet.llamacpp; may change at any time.

A file is staged in the folder ``incoming`` of the record folder. That is on the file system of its place, so that the
rename is atomic, and neither operators nor programs that look for models find an incomplete file there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .._host import layout
from .._host.files import sync_folder
from .._result import OperatorError, Problem
from .file_record import FileChanged

READ_BYTES = 4 << 20
# linux/fs.h FICLONE: share the blocks of another file until one of them is written to (btrfs, xfs, bcachefs, zfs).
FICLONE = 0x40049409


@dataclass(frozen=True)
class Staged:
    """A new file, complete and synced, before it is in its place.

    ``download`` is the engine's Fetched where it came over the network, and ``validator`` the version that the server
    gave it; ``seconds`` is how long it took.
    """

    path: str
    sha256: str
    seconds: float = 0.0
    download: Any = None

    @property
    def validator(self) -> str | None:
        return self.download.validator if self.download else None


@dataclass(frozen=True)
class FolderSpace:
    """The space in a folder, in bytes and files. ``problem``: why nothing can be written to it."""

    folder: str
    exists: bool
    free_bytes: int
    free_files: int | None  # None: the file system has no fixed number of inodes
    problem: Problem | None


def incoming_path(path: str, folder: str) -> str:
    """The path of a file until it is complete; ``folder`` is the name of the record folder."""
    return os.path.join(os.path.dirname(path), folder, layout.INCOMING, os.path.basename(path))


def space(folder: str) -> FolderSpace:
    """Look at the folder, or at its nearest parent that exists. Changes nothing, raises nothing."""
    existing = folder
    while not os.path.lexists(existing) and existing != os.path.dirname(existing):
        existing = os.path.dirname(existing)
    exists = existing == folder
    if not os.path.isdir(existing):
        text = f"{existing} is not a folder, so {folder} cannot be used"
        return FolderSpace(folder, False, 0, None, Problem("", text, "Choose another path.", existing))
    stat = os.statvfs(existing)
    problem = None
    if not os.access(existing, os.W_OK | os.X_OK):
        text = f"the user {os.geteuid()} may not write to {existing}"
        remedy = "Give the folder to the user that runs this task, or run it with become."
        problem = Problem("", text, remedy, existing)
    return FolderSpace(folder, exists, stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else None, problem)


def lacks(there: FolderSpace, size: int, files: int) -> list[Problem]:
    """Every reason why ``files`` new files of ``size`` bytes together do not fit, with 1 % to spare."""
    problems = []
    needed = size + size // 100
    if needed > there.free_bytes:
        text = f"{there.folder} has {there.free_bytes} bytes free, and {needed} are needed (the files and 1 %)"
        remedy = "Free some space, or choose another path. An old file stays until the new one is complete."
        problems.append(Problem("", text, remedy, there.folder))
    if there.free_files is not None and there.free_files < files:
        text = f"{there.folder} has {there.free_files} inodes free, and {files} are needed"
        problems.append(Problem("", text, "Remove some files there.", there.folder))
    return problems


def copy(src: str, place: str) -> tuple[str, str]:
    """Copy ``src`` to a file of its own in the folder of ``place``; returns the path of the copy and its sha256.

    The copy is synced, and hashed while it is written. Where the file system can share blocks it takes no space.
    Raises FileChanged if the source is written to meanwhile, and OSError. It leaves nothing then.
    """
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    _sweep(place)
    handle, copied = tempfile.mkstemp(prefix=f".{os.path.basename(place)}.", suffix=".copy", dir=os.path.dirname(place))
    try:
        with os.fdopen(handle, "r+b", buffering=0) as target, open(src, "rb", buffering=0) as source:
            fcntl.flock(target, fcntl.LOCK_EX)
            before = os.fstat(source.fileno())
            digest = hashlib.sha256()
            buffer = memoryview(bytearray(READ_BYTES))
            cloned = _clone(source.fileno(), target.fileno())
            while count := (target if cloned else source).readinto(buffer):
                digest.update(buffer[:count])
                rest = buffer[:0] if cloned else buffer[:count]
                while rest:
                    rest = rest[target.write(rest) or 0 :]
            os.fchmod(target.fileno(), 0o644)
            os.fsync(target.fileno())
            after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise FileChanged(src)
    except BaseException:
        discard(copied)
        raise
    return copied, digest.hexdigest()


@contextmanager
def discarded_on_failure(staged: Staged) -> Iterator[Staged]:
    """The staged file; it is removed where the with block fails."""
    try:
        yield staged
    except BaseException:
        discard(staged.path)
        raise


def refused_by_host(error: OSError) -> OperatorError:
    """The error of an operation on the host that failed while files were brought."""
    where = f" ({error.filename})" if error.filename else ""
    text = f"the host refused: {error.strerror or error}{where}"
    return OperatorError(Problem("", text, "The files in place did not change. Run this again when that is repaired."))


def install(staged: str, path: str) -> None:
    """Rename a complete, synced file to its place. A process that has the old file open keeps it. Raises OSError."""
    os.rename(staged, path)
    sync_folder(os.path.dirname(path))


def discard(staged: str) -> None:
    """Remove a staged file, if it exists, and the staging folder if that is empty then."""
    with suppress(OSError):
        os.unlink(staged)
    tidy(os.path.dirname(staged))


def leftovers(path: str, folder: str) -> list[str]:
    """The files that interrupted runs left of this one: parts, their journals, copies. Raises nothing."""
    place = incoming_path(path, folder)
    incoming, name = os.path.split(place)
    try:
        names = os.listdir(incoming)
    except OSError:
        return []
    # The parts of the engine begin like this too, with a long name cut off (part_file.py).
    start = f".{name}"[:100]
    return sorted(os.path.join(incoming, one) for one in names if one == name or one.startswith(start))


def tidy(incoming: str) -> None:
    """Remove the staging folder, and the record folder around it, if they are empty."""
    with suppress(OSError):
        os.rmdir(incoming)
        os.rmdir(os.path.dirname(incoming))


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def _sweep(place: str) -> None:
    """Remove copies of this file that killed runs left. A live run holds a lock on its copy."""
    folder, name = os.path.split(place)
    for entry in os.listdir(folder):
        if not (entry.startswith(f".{name}.") and entry.endswith(".copy")):
            continue
        left = os.path.join(folder, entry)
        with suppress(OSError), open(left, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(left)
