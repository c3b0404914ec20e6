# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Page-aligned memory, and direct writes out of it.

Private to gpufleet.llamacpp; may change at any time.

Both serve the row ``plain`` of tools/bench_artifacts.py. Direct writes: 2 GiB in 4.4 s instead of 12.8 s and with 2.8 s
of processor time instead of 6.4 s (2 cores of an AMD EPYC, ext4 on a virtual disk). They also keep a new model from
pushing a served one out of the page cache. Since they bypass the page cache, the hasher gets the bytes from memory.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os

# Direct writes need offset, length and memory to be multiples of this. No disk has larger blocks.
ALIGN = 4096
# On other file systems a direct write can be slow (network file systems), or may not be direct.
FILE_SYSTEMS = ("ext4", "xfs")


def page_aligned(size: int) -> memoryview:
    """Memory of ``size`` bytes that starts at a page boundary. It is allocated when it is first written."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # this kernel or this Python has no huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)  # row ``plain``: 9 % less processor time
    return memoryview(memory)


def piece_buffers(size: int, count: int) -> list[memoryview]:
    """``count`` page-aligned buffers of ``size`` bytes."""
    memory = page_aligned(max(size * count, 1))
    return [memory[start : start + size] for start in range(0, size * count, size)]


def supports_direct(path: str) -> bool:
    """Whether direct writes are fast on the file system of ``path``."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    # proc(5): the third field is the device; the type of the file system follows a field "-".
    return any(mount[2] == number and mount[mount.index("-") + 1] in FILE_SYSTEMS for mount in mounts)


class Writer:
    """Writes to the file ``path``, which is open as ``handle``: directly where possible. Not shared by threads."""

    def __init__(self, path: str, handle: int) -> None:
        """Raises OSError."""
        self._handle = os.dup(handle)
        self._direct = -1
        with contextlib.suppress(OSError):
            if supports_direct(path):
                self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)
                if not os.path.samestat(os.fstat(self._direct), os.fstat(handle)):
                    self._close_direct()

    def write(self, data: memoryview, at: int) -> int:
        """Write ``data`` to offset ``at`` of the file. Returns how many bytes were written. Raises OSError."""
        count = len(data) - len(data) % ALIGN
        if self._direct >= 0 and count and at % ALIGN == 0:
            try:
                return os.pwrite(self._direct, data[:count], at)
            except OSError as failure:
                if failure.errno != errno.EINVAL:  # EINVAL: this disk needs another alignment
                    raise
                self._close_direct()
        return os.pwrite(self._handle, data, at)

    def close(self) -> None:
        self._close_direct()
        os.close(self._handle)

    def _close_direct(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1
