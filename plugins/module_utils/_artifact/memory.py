# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that the kernel copies into and out of at its full speed, and what was written last in it.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import mmap
import threading


def page_aligned(size: int) -> memoryview:
    """Memory for ``size`` bytes that begins with a page.

    That of a large bytearray begins 16 bytes behind one. The kernel's copies into it took twice the processor time:
    0.8 instead of 0.4 seconds per GiB read from a socket, measured on an AMD EPYC.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # a kernel, or a Python, without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


class Blocks:
    """Blocks of memory in which the bytes of a file come, and stay until they are hashed, as far as there is room.

    So what was written need not be read again. There are at most ``most`` blocks, and whoever wants one more waits for
    the hashing. While that waits itself, for bytes that are late, the blocks that would be hashed last are used anew;
    their bytes are read from the file when it is their turn.
    """

    def __init__(self, size: int, most: int) -> None:
        self.size = size
        self._memory = page_aligned(size * most)
        self._left = most
        self._free: list[memoryview] = []
        self._held: dict[int, tuple[memoryview, memoryview]] = {}
        self._changed = threading.Condition()
        self._hashing = False

    def take(self) -> memoryview:
        """A block to read into."""
        with self._changed:
            while True:
                if self._free:
                    return self._free.pop()
                if self._left:
                    self._left -= 1
                    return self._memory[self._left * self.size : (self._left + 1) * self.size]
                if self._held and not self._hashing:
                    return self._held.pop(max(self._held))[0]
                self._changed.wait(0.5)

    def hashing(self, now: bool) -> None:
        """Whether blocks are being hashed, or what is next is late."""
        with self._changed:
            self._hashing = now
            self._changed.notify_all()

    def give(self, block: memoryview) -> None:
        """The block is not needed any more."""
        with self._changed:
            self._free.append(block)
            self._changed.notify()

    def keep(self, block: memoryview, at: int, data: memoryview) -> None:
        """``data``, a part of the block, is what the file has from byte ``at`` on."""
        if len(data) * 2 < self.size:
            self.give(block)  # a whole block for a few bytes of a slow line is not worth it
            return
        with self._changed:
            former = self._held.pop(at, None)
            self._held[at] = (block, data)
            if former:
                self._free.append(former[0])

    def pop(self, at: int) -> tuple[memoryview, memoryview] | None:
        """The block with the file's bytes from ``at`` on, and those; None where it is not held. To be given back."""
        with self._changed:
            return self._held.pop(at, None)

    def forget(self, end: int) -> None:
        """What lies before byte ``end`` is hashed."""
        with self._changed:
            for at in [at for at in self._held if at < end]:
                self._free.append(self._held.pop(at)[0])
