# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The partial file beside its destination: named after its content, full-sized from the start, shared by all who fetch
it.

Writers of the same content write the same bytes at the same places and never truncate, so processes need no lock
between them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import os
import stat
import time

from .._host.files import remove, sync_folder
from .direct import ALIGN
from .journal import Facts, Header, Journal, gather, host_name, journals, owner_lives

# Another host may be at work in a part of which we see only that its journal grows. After this many seconds of silence
# it is not.
SILENCE = 3600.0
# Digits of the content's digest in the part's name.
KEY = 16


class Gone(Exception):
    """The part was taken away under us: another process delivered, replaced or discarded it."""


def content_id(sha256: str | None, validator: str | None) -> str:
    """What a part is named after: the digest of its content, or what the server says its version is."""
    return f"sha256:{sha256}" if sha256 else f"validator:{validator}"


def part_path(destination: str, content: str) -> str:
    """Where the content of that content_id is gathered before it becomes ``destination``."""
    kind, dummy, value = content.partition(":")
    key = value[:KEY] if kind == "sha256" else hashlib.sha256(content.encode()).hexdigest()[:KEY]
    return f"{_stem(destination)}.{key}.part"


def _stem(destination: str) -> str:
    folder, name = os.path.split(destination)
    # The file system allows 255 bytes for a name; ours has the journal's host and process behind it.
    short = name.encode()[:120].decode("utf-8", "ignore")
    return os.path.join(folder, f".{short}")


def allocate(handle: int, size: int) -> None:
    """Give the open file ``size`` bytes of disk, at least in name; never shrinks it. Raises OSError (ENOSPC, EDQUOT,
    EFBIG).

    The C library's posix_fallocate writes the whole file where the file system has no fallocate(2); so that is called
    itself.
    """
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while size and call(handle, 0, 0, size) != 0:
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            break
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    if os.fstat(handle).st_size < size:
        os.ftruncate(handle, size)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def discard_abandoned(destination: str, keep: str | None = None) -> list[str]:
    """Remove what fetches of other contents left beside ``destination``, unless one may be at work; the paths."""
    removed = []
    for path in glob.glob(f"{glob.escape(_stem(destination))}.{'[0-9a-f]' * KEY}.part"):
        if path == keep or any(_at_work(one) for one in journals(path)):
            continue
        for one in [*journals(path), *_delivering(path), path]:
            remove(one)
        removed.append(path)
    return removed


def _delivering(part: str) -> list[str]:
    """The second names that a part has for the moment of its delivery."""
    return glob.glob(glob.escape(part) + ".done.*")


def _recover(part: str) -> None:
    """Undo a delivery that a crash cut short."""
    for path in _delivering(part):
        if owner_lives(path):
            continue
        try:
            # Where it is the part's only name (no hard links), it becomes the part again; else this does nothing.
            os.rename(path, part) if _identity(part) is None else os.unlink(path)
        except FileNotFoundError:
            continue


def _at_work(journal: str) -> bool:
    try:
        return owner_lives(journal) and time.time() - os.stat(journal).st_mtime < SILENCE
    except OSError:
        return False


class Part:
    """An open part. ``facts`` is what was on the disk when it was opened."""

    def __init__(self, destination: str, content: str, size: int, chunk: int) -> None:
        """Open or create it at its full size; raises OSError, and leaves nothing behind if there is no room for it."""
        self.destination = destination
        self.path = part_path(destination, content)
        self.handle, created = prepare(self.path, size)
        try:
            found = os.fstat(self.handle)
            self._identity = (found.st_dev, found.st_ino)
            header = Header(content, size, chunk, found.st_ino)
            old = [] if created else [one for one in journals(self.path) if not owner_lives(one)]
            self.facts = Facts() if created else gather(self.path, header)
            lengths = {index: min(chunk, size - index * chunk) for index in self.facts.have}
            self.facts.have = {
                index: count if count == lengths[index] else count - count % ALIGN
                for index, count in self.facts.have.items()
                if 0 < count <= lengths[index]
            }
            self.journal = Journal(self.path, header, self.facts)
            for path in old:  # ours says it all now
                remove(path)
        except BaseException:
            os.close(self.handle)
            raise

    def is_ours_alone(self) -> bool:
        """Whether no other process of this host, or of another one, is known to write to it."""
        return not any(_at_work(path) for path in journals(self.path) if path != self.journal.path)

    def check(self) -> bool:
        """True while the part is the one that we opened, False if another process delivered it; raises Gone else."""
        if _identity(self.path) == self._identity:
            return True
        if _identity(self.destination) == self._identity:
            return False
        raise Gone(f"{self.path} was taken away by another process")

    def deliver(self) -> None:
        """Make the whole and proven part the destination, durably; raises OSError or Gone.

        Between a look at the part's name and a rename another process may have put a new part there. So the file first
        gets a name of our own, under which it is looked at again.
        """
        os.fsync(self.handle)
        if self.check():
            own = f"{self.path}.done.{host_name()}.{os.getpid()}"
            remove(own)
            try:
                os.link(self.path, own, follow_symlinks=False)
            except FileNotFoundError:
                own = ""
            except OSError:  # a file system without hard links
                os.rename(self.path, own)
            if own and _identity(own) == self._identity:
                # Another process that delivers the same file at this moment tidies up behind both of us.
                with contextlib.suppress(FileNotFoundError):
                    os.rename(own, self.destination)
            if own:
                remove(own)  # a rename onto another name of the same file does nothing, and leaves this one
            if _identity(self.destination) != self._identity:
                raise Gone(f"{self.path} was taken away by another process")
        sync_folder(os.path.dirname(self.destination) or ".")
        if _identity(self.path) == self._identity:
            self.discard()
        self.close()
        self.journal.remove()

    def discard(self) -> None:
        """Keep nothing. Journals go first: a part without them claims nothing, a journal without its part would lie."""
        for path in [*journals(self.path), *_delivering(self.path)]:
            remove(path)
        if _identity(self.path) == self._identity:
            remove(self.path)
        self.close()

    def close(self) -> None:
        """Close what is open; the part and its journals stay for the next fetch."""
        self.journal.close()
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def prepare(path: str, size: int) -> tuple[int, bool]:
    """Open the part ``path``, or make it; at its full size. Its handle, and whether it is new.

    Raises OSError, and leaves nothing new behind, if there is no room for it.
    """
    _recover(path)
    handle, created = _open(path, size)
    try:
        if created:
            for stale in journals(path):  # of a part that is no more: they would lie about this one
                remove(stale)
        allocate(handle, size)
    except OSError:
        os.close(handle)
        if created:
            remove(path)
        raise
    return handle, created


def _open(path: str, size: int) -> tuple[int, bool]:
    """The part's handle, and whether it is new."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags | os.O_EXCL, 0o666), True
        except FileExistsError:
            pass
        try:
            handle = os.open(path, flags & ~os.O_CREAT)
        except FileNotFoundError:
            continue
        except OSError as failure:
            if failure.errno != errno.ELOOP:
                raise
            remove(path)  # a link: nothing that we would have made, and we write to nobody else's file
            continue
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_size <= size:
            return handle, False
        os.close(handle)
        remove(path)  # not something that we would have made
