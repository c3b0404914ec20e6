# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sha256 of a file while it arrives: a thread that hashes the pieces in order.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import hashlib
import os
import threading

from .buffers import page_aligned
from .part_file import Part
from .pieces import Piece, Pieces

READ = 1 << 20


class Hasher(threading.Thread):
    """Hashes one piece after the other. ``digest`` is the sha256 after a successful end.

    The state after each piece is the sha256 of the file so far; the journal records it. If the journal of an earlier
    fetch has another sha256 for a piece, the disk has damaged this piece, and it alone is fetched again.
    """

    def __init__(self, part: Part, pieces: Pieces) -> None:
        super().__init__(name="sha256", daemon=True)
        self._descriptor = os.dup(part.handle)
        self._part = part
        self._pieces = pieces
        self._expected = dict(part.facts.prefix)
        self._buffer = page_aligned(READ)
        self._fetched_again: list[int] = []
        self.hashed = 0
        self.digest: str | None = None

    def run(self) -> None:
        try:
            state = hashlib.sha256()
            for piece in self._pieces.all:
                following = self._next(state, piece)
                if following is None:
                    return
                state = following
            self.digest = state.hexdigest()
            self._pieces.finish_all()
        except BaseException as failure:  # pylint: disable=broad-exception-caught  # the fetching thread raises it
            self._pieces.fail(failure)
        finally:
            os.close(self._descriptor)

    def _next(self, before: hashlib._Hash, piece: Piece) -> hashlib._Hash | None:
        """The state after ``piece``, when it is whole and right; None if the fetch failed."""
        while self._wait_for(piece):
            state = before.copy()
            self._add(state, piece)
            digest = state.copy().hexdigest()
            expected = self._expected.get(piece.index)
            if expected and expected != digest:
                if piece.index not in self._fetched_again:
                    self._fetched_again.append(piece.index)
                    self.hashed = piece.start
                    self._pieces.reopen(piece.index)
                    continue
                self._expected.clear()  # the same again: the record is wrong
            if expected != digest:
                self._part.journal.note(piece.index, digest)
            return state
        return None

    def _wait_for(self, piece: Piece) -> bool:
        """Whether ``piece`` is whole; False if the fetch ended before."""
        with self._pieces.changed:
            while not self._pieces.is_whole(piece.index) and not self._pieces.stopped:
                if self._pieces.hashing:
                    self._pieces.hashing = False
                    self._pieces.changed.notify_all()
                self._pieces.changed.wait()
            self._pieces.hashing = not self._pieces.stopped
            return self._pieces.hashing

    def _add(self, state: hashlib._Hash, piece: Piece) -> None:
        # If another process writes to the same part, the file may have other bytes than the buffer.
        if piece.buffer is not None and self._part.is_ours_alone():
            state.update(piece.buffer[: piece.end - piece.start])
        else:
            for at in range(piece.start, piece.end, READ):
                block = self._buffer[: piece.end - at]
                if os.preadv(self._descriptor, [block], at) != len(block):
                    raise OSError(f"the part ends before byte {at + len(block)}: another program truncated it")
                state.update(block)
                self.hashed = at
        self.hashed = piece.end
        self._pieces.hashed(piece)
