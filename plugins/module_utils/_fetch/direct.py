# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing past the page cache, where the file system is good at that.

Private to gpufleet.llamacpp; may change at any time.

2 GiB written and synced through the page cache took 2.5 s and direct 1.1 s, with a fifth of the processor time (ext4 on
a virtual disk). And a model that arrives does not push those out of the memory that are served.
"""

from __future__ import annotations

import contextlib
import errno
import os

# What O_DIRECT wants offset, length and memory to be multiples of; no disk has larger blocks.
ALIGN = 4096
# Elsewhere a direct write can be slow (a network), or be no direct one.
FILE_SYSTEMS = ("ext4", "xfs")


def is_good_at(path: str) -> bool:
    """Whether the file system of ``path`` writes directly, and fast."""
    device = os.stat(path).st_dev
    mark = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            fields = [line.split() for line in file]
    except OSError:
        return False
    # proc(5): the third field is the device; the file system's type follows a field "-".
    return any(words[2] == mark and words[words.index("-") + 1] in FILE_SYSTEMS for words in fields)


class Writer:
    """A thread's way to write to the file ``path``, which is open as ``handle``."""

    def __init__(self, path: str, handle: int) -> None:
        """Raises OSError."""
        self._handle = os.dup(handle)
        self._direct = -1
        with contextlib.suppress(OSError):
            if is_good_at(path):
                self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)
                if not os.path.samestat(os.fstat(self._direct), os.fstat(handle)):
                    self._end_direct()

    def write(self, data: memoryview, at: int, aligned: bool) -> int:
        """Write some of ``data`` to byte ``at`` of the file; how much. ``aligned``: whether its memory is.

        Raises OSError.
        """
        count = len(data) - len(data) % ALIGN
        if self._direct >= 0 and aligned and count and at % ALIGN == 0:
            try:
                return os.pwrite(self._direct, data[:count], at)
            except OSError as failure:
                if failure.errno != errno.EINVAL:
                    raise
                self._end_direct()
        return os.pwrite(self._handle, data, at)

    def close(self) -> None:
        """Close what is open."""
        self._end_direct()
        os.close(self._handle)

    def _end_direct(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1
