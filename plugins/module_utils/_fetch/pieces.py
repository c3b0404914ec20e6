# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pieces of a file are still to be fetched, and who fetches which.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .direct import ALIGN, Writer
from .source import Place

# An idle worker takes a piece over if its owner would need this many times as long for the rest, and these seconds
# more.
TAKEOVER_FACTOR = 3.0
TAKEOVER_SECONDS = 2.0


@dataclass(eq=False)
class Piece:
    """Bytes [start, end) of the file; those before ``at`` are written. Only ``owner`` may write, under ``lock``."""

    index: int
    start: int
    end: int
    at: int
    owner: object | None = None
    place: Place | None = None
    began: float = 0.0
    began_at: int = 0
    takeovers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def seconds_left(self, now: float) -> float:
        """How long the owner will need at the pace that this request had so far; endless before its first byte."""
        came = self.at - self.began_at
        return (self.end - self.at) * (now - self.began) / came if came else float("inf")

    def write(self, owner: object, writer: Writer, data: memoryview, aligned: bool) -> bool:
        """Write ``data`` where the piece stands; False, and nothing done, if ``owner`` lost it. Raises OSError."""
        with self.lock:
            if self.owner is not owner:
                return False
            while data:
                count = writer.write(data, self.at, aligned)
                self.at += count
                data = data[count:]
                aligned = aligned and count % ALIGN == 0
            return True


class Pieces:
    """All pieces of one file. ``changed`` is the condition that every thread of a fetch waits on."""

    def __init__(self, size: int, chunk: int, have: Mapping[int, int]) -> None:
        self.changed = threading.Condition()
        self.size = size
        self.all = [
            Piece(index, start, min(start + chunk, size), start + have.get(index, 0))
            for index, start in enumerate(range(0, size, chunk))
        ]
        self.failure: BaseException | None = None
        self.finished = False
        self._todo = [piece.index for piece in self.all if piece.at < piece.end]
        self._flying: set[Piece] = set()
        self._open = set(self._todo)
        self._unclaimed: set[int] = set()

    def whole(self, index: int) -> bool:
        """Whether piece ``index`` is written to its end."""
        return index not in self._open

    @property
    def left(self) -> int:
        """Pieces that are not whole."""
        return len(self._open)

    @property
    def flying(self) -> int:
        """Bytes that are asked for, or about to be, and not written."""
        with self.changed:
            return sum(piece.end - piece.at for piece in self._flying)

    def bytes(self) -> int:
        """Bytes of the file that are written."""
        with self.changed:
            return self.size - sum(self.all[index].end - self.all[index].at for index in self._open)

    @property
    def stopped(self) -> bool:
        return self.finished or self.failure is not None

    def take(self, owner: object, place: Place) -> Piece | None:
        """The first piece that nobody fetches, or one that ``place`` would bring much sooner than who fetches it; None
        for now.

        The caller holds ``changed``.
        """
        now = time.monotonic()
        piece = None
        while self._todo and piece is None:
            piece = self.all[heapq.heappop(self._todo)]
            if self.whole(piece.index):
                piece = None
        if piece is None:
            slow = max(self._flying, key=lambda one: one.seconds_left(now), default=None)
            # The patience doubles each time: who takes over from a server that is slow to begin must not do so for
            # ever.
            if slow is None or now - slow.began < TAKEOVER_SECONDS * 2**slow.takeovers:
                return None
            ours = (slow.end - slow.at) / place.rate if place.rate else 0.0
            if slow.seconds_left(now) < ours * TAKEOVER_FACTOR + TAKEOVER_SECONDS:
                return None
            piece = slow
            piece.takeovers += 1
        with piece.lock:
            piece.owner, piece.place = owner, place
            piece.began, piece.began_at = now, piece.at
        self._flying.add(piece)
        self._unclaimed.add(piece.index)
        return piece

    def give_back(self, owner: object, piece: Piece) -> None:
        """Its owner could not finish it; what is written stays."""
        with self.changed:
            if self._revoke(piece, owner):
                heapq.heappush(self._todo, piece.index)
                self.changed.notify_all()

    def finish(self, owner: object, piece: Piece) -> None:
        """Its owner has written all of it."""
        with self.changed:
            if self._revoke(piece, owner):
                self._open.discard(piece.index)
                self.changed.notify_all()

    def reopen(self, index: int) -> None:
        """What is written of piece ``index`` is not what it should be: fetch it again."""
        with self.changed:
            piece = self.all[index]
            piece.at = piece.start
            self._open.add(index)
            heapq.heappush(self._todo, index)
            self.changed.notify_all()

    def written(self) -> list[tuple[int, int]]:
        """(index, bytes written) of every piece that was worked at since the last call: what a sync makes safe."""
        with self.changed:
            found = [(index, self.all[index].at - self.all[index].start) for index in sorted(self._unclaimed)]
            self._unclaimed = {piece.index for piece in self._flying}
            return found

    def done_elsewhere(self) -> None:
        """Another process has made the file whole."""
        with self.changed:
            self._halt()
            for index in self._open:
                self.all[index].at = self.all[index].end
            self._open.clear()
            self.changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        """End the fetch; the first failure is the one that counts. Nobody writes any more on return."""
        with self.changed:
            if not self.stopped:
                self.failure = failure
            self._halt()
            self.changed.notify_all()

    def finish_all(self) -> None:
        """End the fetch well."""
        with self.changed:
            self.finished = True
            self._halt()
            self.changed.notify_all()

    def _halt(self) -> None:
        for piece in list(self._flying):
            with piece.lock:
                piece.owner = None
        self._flying.clear()
        self._todo.clear()

    def _revoke(self, piece: Piece, owner: object) -> bool:
        with piece.lock:
            if piece.owner is not owner:
                return False
            piece.owner = None
        self._flying.discard(piece)
        return True
