# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that the kernel copies into and out of at its full speed, and what was written last in it.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import mmap
import threading
import time

# Seconds after which bytes that the hashing waits for are late. A read takes that long; to take a block away from
# those that wait to be hashed costs a read from the disk.
LATE = 0.02


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
    the hashing; who brings what is hashed soonest gets the next one, so that the hashing never waits for a block that
    others hold. While it waits for bytes that are late, the blocks that would be hashed last are used anew; their bytes
    are read from the file when it is their turn.
    """

    def __init__(self, size: int, most: int) -> None:
        self.size = size
        self._memory = page_aligned(size * most)
        self._left = most
        self._free: list[memoryview] = []
        self._held: dict[int, tuple[memoryview, memoryview]] = {}
        self._lock = threading.Lock()
        # Who waits, by the place in the file of what they are going to bring; the number tells equal places apart.
        self._waiting: list[tuple[int, int, threading.Condition]] = []
        self._number = itertools.count()
        self._idle_since: float | None = time.monotonic()

    def take(self, at: int) -> memoryview:
        """A block to read the file's bytes from ``at`` on into."""
        with self._lock:
            block = None if self._waiting else self._find()
            if block is not None:
                return block
            mine = (at, next(self._number), threading.Condition(self._lock))
            heapq.heappush(self._waiting, mine)
            try:
                while True:
                    first = self._waiting[0] is mine
                    block = self._find() if first else None
                    if block is not None:
                        return block
                    mine[2].wait(LATE if first else None)  # it is told when it becomes the first
            finally:
                self._waiting.remove(mine)
                heapq.heapify(self._waiting)
                self._call()

    def hashing(self, now: bool) -> None:
        """Whether blocks are being hashed, or what is next is late."""
        with self._lock:
            if now:
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = time.monotonic()

    def give(self, block: memoryview) -> None:
        """The block is not needed any more."""
        with self._lock:
            self._free.append(block)
            self._call()

    def _find(self) -> memoryview | None:
        if self._free:
            return self._free.pop()
        if self._left:
            self._left -= 1
            return self._memory[self._left * self.size : (self._left + 1) * self.size]
        if self._held and self._idle_since is not None and time.monotonic() - self._idle_since >= LATE:
            return self._held.pop(max(self._held))[0]
        return None

    def _call(self) -> None:
        """Have the first of those who wait look again; it may have just become that."""
        if self._waiting:
            self._waiting[0][2].notify()

    def keep(self, block: memoryview, at: int, data: memoryview) -> None:
        """``data``, a part of the block, is what the file has from byte ``at`` on."""
        if len(data) * 2 < self.size:
            self.give(block)  # a whole block for a few bytes of a slow line is not worth it
            return
        with self._lock:
            former = self._held.pop(at, None)
            self._held[at] = (block, data)
            if former:
                self._free.append(former[0])

    def pop(self, at: int) -> tuple[memoryview, memoryview] | None:
        """The block with the file's bytes from ``at`` on, and those; None where it is not held. To be given back."""
        with self._lock:
            return self._held.pop(at, None)

    def next(self, at: int) -> int | None:
        """The first byte behind ``at`` that is held; None where there is none."""
        with self._lock:
            return min((held for held in self._held if held > at), default=None)

    def forget(self, end: int) -> None:
        """What lies before byte ``end`` is hashed."""
        with self._lock:
            for at in [at for at in self._held if at < end]:
                self._free.append(self._held.pop(at)[0])


class Filling:
    """The block that one thread fills, read by read, with bytes that follow each other in the file.

    So a block holds as much of a slow line's short reads as of a fast one's.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._block: memoryview | None = None
        self._at = 0
        self._filled = 0

    def room(self, at: int) -> memoryview:
        """Memory for the file's bytes from ``at`` on; may wait for a block."""
        if self._block is not None and at != self._at + self._filled:
            self.end()
        if self._block is None:
            self._block, self._at, self._filled = self._blocks.take(at), at, 0
        return self._block[self._filled :]

    def add(self, count: int) -> None:
        """That many bytes of the room are what the file has there."""
        self._filled += count
        if self._filled == self._blocks.size:
            self.end()

    def end(self) -> None:
        """Leave the block to the hashing, with what it has."""
        if self._block is not None:
            self._blocks.keep(self._block, self._at, self._block[: self._filled])
            self._block = None

    def drop(self) -> None:
        """Leave what the block has to nobody."""
        self._filled = 0
        self.end()
