# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing one large file to its place: room for it, a copy that is hashed on the way, and the rename at the end.

Private to gpufleet.llamacpp; may change at any time.

What is not whole yet lies in ``incoming`` inside the record folder beside the place: the same file system, so that the
rename is atomic, and out of the way of operators and of everything that looks for models.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass

from .._host import layout
from .._host.files import sync_folder

READ_BYTES = 4 << 20
# linux/fs.h FICLONE: share the blocks of another file until one of them is written to (btrfs, xfs, bcachefs, zfs).
FICLONE = 0x40049409


class PlaceError(Exception):
    """The file cannot be brought to its place. The message is a sentence for the operator."""


@dataclass(frozen=True)
class Room:
    """What a folder has to offer; ``problem`` in words where nothing can be written to it. Sizes in bytes."""

    folder: str
    exists: bool
    free_bytes: int
    free_files: int | None  # None: the file system has no fixed number of inodes
    problem: str | None


def incoming_path(path: str, folder: str) -> str:
    """Where a file lies until it is whole; ``folder`` is the record folder's name."""
    return os.path.join(os.path.dirname(path), folder, layout.INCOMING, os.path.basename(path))


def room(folder: str) -> Room:
    """Look at the folder, or at its nearest parent that is there. Changes nothing, raises nothing."""
    existing = folder
    while not os.path.lexists(existing) and existing != os.path.dirname(existing):
        existing = os.path.dirname(existing)
    exists = existing == folder
    if not os.path.isdir(existing):
        return Room(folder, False, 0, None, f"{existing} is not a folder, so {folder} cannot be used.")
    stat = os.statvfs(existing)
    problem = None
    if not os.access(existing, os.W_OK | os.X_OK):
        problem = (
            f"The user {os.geteuid()} may not write to {existing}. Give the folder to the user that runs this task, or "
            "run it with become."
        )
    return Room(folder, exists, stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else None, problem)


def lacks(there: Room, size: int, files: int) -> list[str]:
    """Every reason why ``files`` new files of ``size`` bytes together do not fit, with a little to spare."""
    problems = []
    wanted = size + size // 100
    if wanted > there.free_bytes:
        problems.append(
            f"{there.folder} has {there.free_bytes} bytes free, and {wanted} are needed (the files and 1 %). An old "
            "file stays until the new one is whole. Free some space or choose another place."
        )
    if there.free_files is not None and there.free_files < files:
        problems.append(
            f"{there.folder} has {there.free_files} inodes free, and {files} are needed. Remove some files there."
        )
    return problems


def copy(src: str, path: str, folder: str) -> tuple[str, str]:
    """Copy ``src`` to the incoming place of ``path``; returns the copy's path and its sha256.

    The copy is synced, and read once: hashed while it is written. Where the file system can share blocks it takes no
    space. Raises PlaceError if the source changes meanwhile, OSError if it cannot be read or the copy not be written;
    leaves nothing behind then.
    """
    place = incoming_path(path, folder)
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
            raise PlaceError(f"{src} was written to while it was being copied. Try again when nobody writes to it.")
    except BaseException:
        discard(copied)
        raise
    return copied, digest.hexdigest()


def install(staged: str, path: str) -> None:
    """Put a whole, synced file in its place at once; what was there stays whole for who has it open. Raises OSError."""
    os.rename(staged, path)
    sync_folder(os.path.dirname(path))


def discard(staged: str) -> None:
    """Remove a file that did not become whole, if it is there, and the incoming folder with the last one."""
    with suppress(OSError):
        os.unlink(staged)
    tidy(os.path.dirname(staged))


def leftovers(path: str, folder: str) -> list[str]:
    """What interrupted runs left of this file: parts of it, their journals, copies. Raises nothing."""
    place = incoming_path(path, folder)
    incoming, name = os.path.split(place)
    try:
        names = os.listdir(incoming)
    except OSError:
        return []
    # fetch.py's parts begin so too, with a long name cut (part.py); so a name is compared as far as both have it.
    start = f".{name}"[:100]
    return sorted(os.path.join(incoming, one) for one in names if one == name or one.startswith(start))


def tidy(incoming: str) -> None:
    """Remove the incoming folder, and the record folder around it, when nothing is in them."""
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
    """Remove copies of this file that a killed run left. A live one holds a lock on its copy."""
    folder, name = os.path.split(place)
    for entry in os.listdir(folder):
        if not (entry.startswith(f".{name}.") and entry.endswith(".copy")):
            continue
        left = os.path.join(folder, entry)
        with suppress(OSError), open(left, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(left)
