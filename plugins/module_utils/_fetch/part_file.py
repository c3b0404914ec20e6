# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part file beside a destination: named after its content, full-sized from the start, shared by all processes that
fetch it.

Writers of the same content write the same bytes at the same offsets and never truncate, so they need no lock.

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
from .buffers import ALIGN
from .journal import Facts, Header, Journal, gather, host_name, journals, owner_may_run

# A process of another host is visible only by its growing journal. After this many seconds without a change it is taken
# for dead.
SILENCE = 3600.0
# The digits of the content's digest in the name of a part.
KEY = 16


class PartLost(Exception):
    """Another process delivered, replaced or removed the part."""


def content_id(sha256: str | None, validator: str | None) -> str:
    """What a part is named after: the sha256 of its content, else the version that the server gives."""
    return f"sha256:{sha256}" if sha256 else f"validator:{validator}"


def part_path(destination: str, content: str) -> str:
    """The part of the content with that content_id for ``destination``."""
    kind, dummy, value = content.partition(":")
    key = value[:KEY] if kind == "sha256" else hashlib.sha256(content.encode()).hexdigest()[:KEY]
    return f"{_stem(destination)}.{key}.part"


def _stem(destination: str) -> str:
    folder, name = os.path.split(destination)
    # A file name may have 255 bytes, and the journal's name ends with host and process.
    short = name.encode()[:120].decode("utf-8", "ignore")
    return os.path.join(folder, f".{short}")


def allocate(handle: int, size: int) -> None:
    """Reserve ``size`` bytes of disk for the open file, or at least set its size. Never shrinks it.

    Raises OSError (ENOSPC, EDQUOT, EFBIG). This calls fallocate(2) itself: where the file system has none, the
    posix_fallocate of the C library writes the whole file.
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


def discard_abandoned(destination: str, keep: str) -> None:
    """Remove the parts of other contents beside ``destination``, unless a process may be fetching them."""
    for path in glob.glob(f"{glob.escape(_stem(destination))}.{'[0-9a-f]' * KEY}.part"):
        if path == keep or any(_is_in_use(one) for one in journals(path)):
            continue
        for one in [*journals(path), *_deliveries(path), path]:
            remove(one)


def _deliveries(part: str) -> list[str]:
    """The second names that a part has while it is delivered."""
    return glob.glob(glob.escape(part) + ".done.*")


def _recover(part: str) -> None:
    """Undo an interrupted delivery."""
    for path in _deliveries(part):
        if owner_may_run(path):
            continue
        try:
            # If this is the only name of the part (no hard links), the part gets its own name again.
            os.rename(path, part) if _identity(part) is None else os.unlink(path)
        except FileNotFoundError:
            continue


def _is_in_use(journal: str) -> bool:
    try:
        return owner_may_run(journal) and time.time() - os.stat(journal).st_mtime < SILENCE
    except OSError:
        return False


class Part:
    """An open part. ``facts``: what was durable when it was opened."""

    def __init__(self, destination: str, content: str, size: int, chunk: int) -> None:
        """Open or create it at its full size. Raises OSError; without room for it, leaves nothing behind."""
        self.destination = destination
        self.path = part_path(destination, content)
        self.handle, created = prepare(self.path, size)
        try:
            found = os.fstat(self.handle)
            self._identity = (found.st_dev, found.st_ino)
            header = Header(content, size, chunk, found.st_ino)
            old = [] if created else [one for one in journals(self.path) if not owner_may_run(one)]
            self.facts = Facts() if created else gather(self.path, header)
            lengths = {index: min(chunk, size - index * chunk) for index in self.facts.have}
            self.facts.have = {
                index: count if count == lengths[index] else count - count % ALIGN
                for index, count in self.facts.have.items()
                if 0 < count <= lengths[index]
            }
            self.journal = Journal(self.path, header, self.facts)
            for path in old:  # the new journal has all their facts
                remove(path)
        except BaseException:
            os.close(self.handle)
            raise

    def is_ours_alone(self) -> bool:
        """Whether no other process, on this host or another, is known to write to it."""
        return not any(_is_in_use(path) for path in journals(self.path) if path != self.journal.path)

    def check(self) -> bool:
        """True while the part is still in place, False if another process delivered it. Otherwise raises PartLost."""
        if _identity(self.path) == self._identity:
            return True
        if _identity(self.destination) == self._identity:
            return False
        raise PartLost(f"another process removed {self.path}")

    def deliver(self) -> None:
        """Make the whole and verified part the destination, durably. Raises OSError or PartLost.

        Another process may put a new part in place between a check and a rename. So the part first gets a name of this
        process, and is checked under this name.
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
                # A process that delivers the same file at the same time may have removed it.
                with contextlib.suppress(FileNotFoundError):
                    os.rename(own, self.destination)
            if own:
                remove(own)  # rename() does nothing if both names are of the same file
            if _identity(self.destination) != self._identity:
                raise PartLost(f"another process removed {self.path}")
        sync_folder(os.path.dirname(self.destination) or ".")
        if _identity(self.path) == self._identity:
            self.discard()
        self.close()
        self.journal.remove()

    def discard(self) -> None:
        """Remove everything. The journals go first: without its part, a journal would be wrong about the next one."""
        for path in [*journals(self.path), *_deliveries(self.path)]:
            remove(path)
        if _identity(self.path) == self._identity:
            remove(self.path)
        self.close()

    def close(self) -> None:
        """Close it. The part and its journals stay for the next fetch."""
        self.journal.close()
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def prepare(path: str, size: int) -> tuple[int, bool]:
    """Open the part ``path`` at its full size, or create it. Returns its handle, and whether it is new.

    Raises OSError; without room for a new part, leaves nothing behind.
    """
    _recover(path)
    handle, created = _open(path, size)
    try:
        if created:
            for stale in journals(path):  # of an earlier part: they would be wrong about this one
                remove(stale)
        allocate(handle, size)
    except OSError:
        os.close(handle)
        if created:
            remove(path)
        raise
    return handle, created


def _open(path: str, size: int) -> tuple[int, bool]:
    """The handle of the part, and whether it is new."""
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
            remove(path)  # a symbolic link: never made by us, and its target is not ours to write
            continue
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_size <= size:
            return handle, False
        os.close(handle)
        remove(path)  # never made by us
