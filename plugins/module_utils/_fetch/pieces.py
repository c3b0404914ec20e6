# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pieces of a file: which are missing, who fetches which, and the memory in which they wait to be hashed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .buffers import Writer, piece_buffers
from .source import Upstream

# An idle worker takes a piece over if its owner needs this many times as long for the rest, and these seconds more.
TAKEOVER_FACTOR = 3.0
TAKEOVER_SECONDS = 2.0


@dataclass(eq=False)
class Piece:
    """Bytes [start, end) of the file; those before ``at`` are written. Only ``owner`` may write, under ``lock``.

    ``buffer`` has the written bytes for the hasher; None if it must read them from the file.
    """

    index: int
    start: int
    end: int
    at: int
    owner: object | None = None
    began: float = 0.0
    began_at: int = 0
    takeovers: int = 0
    buffer: memoryview | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def seconds_left(self, now: float) -> float:
        """How long the owner needs at the rate of its request so far; infinite before its first byte."""
        received = self.at - self.began_at
        return (self.end - self.at) * (now - self.began) / received if received else float("inf")

    def room(self, owner: object) -> memoryview | None:
        """The part of the buffer for the next bytes; None if there is no buffer or ``owner`` lost the piece."""
        with self.lock:
            if self.owner is not owner or self.buffer is None:
                return None
            return self.buffer[self.at - self.start :]

    def write(self, owner: object, writer: Writer, data: memoryview) -> bool:
        """Write ``data`` at ``at``. Returns False, and writes nothing, if ``owner`` lost the piece. Raises OSError."""
        with self.lock:
            if self.owner is not owner:
                return False
            while data:
                count = writer.write(data, self.at)
                self.at += count
                data = data[count:]
            return True


class Pieces:
    """All pieces of one file. ``changed`` is the condition that the threads of a fetch wait on.

    ``have``: the bytes that each piece has already; ``buffers``: how many pieces can be in memory.
    """

    def __init__(self, size: int, chunk: int, have: Mapping[int, int], buffers: int = 0) -> None:
        self.changed = threading.Condition()
        self.size = size
        self.all = [
            Piece(index, start, min(start + chunk, size), start + have.get(index, 0))
            for index, start in enumerate(range(0, size, chunk))
        ]
        self.failure: BaseException | None = None
        self.finished = False
        self.hashing = False  # False while the hasher waits for a piece
        self._todo = [piece.index for piece in self.all if piece.at < piece.end]
        self._fetched_now: set[Piece] = set()
        self._incomplete = set(self._todo)
        self._unclaimed: set[int] = set()
        # The free buffers, and those of workers that lost their piece but may still read into them.
        self._buffers = piece_buffers(chunk, min(buffers, len(self.all)))
        self._lost: dict[object, memoryview] = {}

    def is_whole(self, index: int) -> bool:
        """Whether piece ``index`` is written to its end."""
        return index not in self._incomplete

    @property
    def missing(self) -> int:
        """The number of pieces that are not whole."""
        return len(self._incomplete)

    @property
    def requested(self) -> int:
        """Bytes that are requested, or will be at once, and not written."""
        with self.changed:
            return sum(piece.end - piece.at for piece in self._fetched_now)

    def bytes(self) -> int:
        """Bytes of the file that are written."""
        with self.changed:
            return self.size - sum(self.all[index].end - self.all[index].at for index in self._incomplete)

    @property
    def stopped(self) -> bool:
        return self.finished or self.failure is not None

    def wait_for_buffer(self) -> None:
        """Wait for a free buffer while the hasher is busy. The caller holds ``changed``.

        A piece without a buffer is read from the disk to be hashed, which takes longer than to wait. But while the
        hasher itself waits for a slow piece, the other pieces must not wait for the hasher.
        """
        while self._todo and not self._buffers and self.hashing and not self.stopped:
            self.changed.wait(0.5)

    def take(self, owner: object, upstream: Upstream) -> Piece | None:
        """The first piece that no worker fetches, or one that ``upstream`` would deliver much sooner than its owner.

        None if there is none now. The caller holds ``changed``.
        """
        now = time.monotonic()
        piece = None
        while self._todo and piece is None:
            piece = self.all[heapq.heappop(self._todo)]
            if self.is_whole(piece.index):
                piece = None
        if piece is None:
            piece = self._take_over(now, upstream)
            if piece is None:
                return None
        elif self._buffers and piece.buffer is None and piece.at == piece.start:
            piece.buffer = self._buffers.pop()
        with piece.lock:
            piece.owner, piece.began, piece.began_at = owner, now, piece.at
        self._fetched_now.add(piece)
        self._unclaimed.add(piece.index)
        return piece

    def _take_over(self, now: float, upstream: Upstream) -> Piece | None:
        slow = max(self._fetched_now, key=lambda one: one.seconds_left(now), default=None)
        # The time doubles with each takeover, so that a server that is slow to start is not interrupted forever.
        if slow is None or now - slow.began < TAKEOVER_SECONDS * 2**slow.takeovers:
            return None
        ours = (slow.end - slow.at) / upstream.rate if upstream.rate else 0.0
        if slow.seconds_left(now) < ours * TAKEOVER_FACTOR + TAKEOVER_SECONDS:
            return None
        slow.takeovers += 1
        if slow.buffer is not None:
            self._lost[slow.owner], slow.buffer = slow.buffer, None
        return slow

    def give_back(self, owner: object, piece: Piece) -> None:
        """``owner`` is done with the piece. If it is not whole, another worker continues it."""
        with self.changed:
            self._free(self._lost.pop(owner, None))
            if self._revoke(piece, owner):
                heapq.heappush(self._todo, piece.index)
                self.changed.notify_all()

    def finish(self, owner: object, piece: Piece) -> None:
        """``owner`` has written all of the piece."""
        with self.changed:
            if self._revoke(piece, owner):
                self._incomplete.discard(piece.index)
                self.changed.notify_all()

    def hashed(self, piece: Piece) -> None:
        """The piece needs its buffer no more."""
        with self.changed:
            self._free(piece.buffer)
            piece.buffer = None

    def reopen(self, index: int) -> None:
        """Piece ``index`` has wrong content: fetch it again."""
        with self.changed:
            piece = self.all[index]
            piece.at = piece.start
            self._incomplete.add(index)
            heapq.heappush(self._todo, index)
            self.changed.notify_all()

    def written(self) -> list[tuple[int, int]]:
        """(index, bytes written) of every piece that was fetched since the last call: what a sync makes durable."""
        with self.changed:
            found = [(index, self.all[index].at - self.all[index].start) for index in sorted(self._unclaimed)]
            self._unclaimed = {piece.index for piece in self._fetched_now}
            return found

    def done_elsewhere(self) -> None:
        """Another process has completed the file."""
        with self.changed:
            self._halt()
            for index in self._incomplete:
                self.all[index].at = self.all[index].end
                self.all[index].buffer = None
            self._incomplete.clear()
            self.changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        """End the fetch; the first failure counts. After this no worker writes."""
        with self.changed:
            if not self.stopped:
                self.failure = failure
            self._halt()
            self.changed.notify_all()

    def finish_all(self) -> None:
        """End the fetch: the file is whole."""
        with self.changed:
            self.finished = True
            self._halt()
            self.changed.notify_all()

    def _halt(self) -> None:
        for piece in list(self._fetched_now):
            with piece.lock:
                piece.owner = None
        self._fetched_now.clear()
        self._todo.clear()

    def _revoke(self, piece: Piece, owner: object) -> bool:
        with piece.lock:
            if piece.owner is not owner:
                return False
            piece.owner = None
        self._fetched_now.discard(piece)
        return True

    def _free(self, buffer: memoryview | None) -> None:
        if buffer is not None:
            self._buffers.append(buffer)
            self.changed.notify_all()
