# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sha256 of a file while it arrives: a thread that follows the pieces in order, and reads what is not in memory.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import hashlib
import os
import threading

from .buffers import Blocks, page_aligned
from .part_file import Part
from .pieces import Piece, Pieces

# Less would fit into a nearer cache of the core, and cost more for the turns that the threads of an interpreter take.
READ = 1 << 20


class Frontier(threading.Thread):
    """Hashes piece after piece; ``digest`` is the sha256 once it ended well.

    The state after each piece is the sha256 of the file so far, for nothing: the journal gets it. It has those of an
    earlier fetch: a piece that was right then and reads differently now was damaged on the disk, and is fetched again,
    alone.
    """

    def __init__(
        self,
        part: Part,
        pieces: Pieces,
        blocks: Blocks,
    ) -> None:
        super().__init__(name="sha256", daemon=True)
        self._source = os.dup(part.handle)
        self._part = part
        self._pieces = pieces
        self._blocks = blocks
        self._known = dict(part.facts.prefix)
        self._buffer = page_aligned(READ)
        self.hashed = 0
        self.repaired: list[int] = []
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
            self._blocks.hashing(False)
            os.close(self._source)

    def _next(self, before: hashlib._Hash, piece: Piece) -> hashlib._Hash | None:
        """The state after ``piece``, as soon as it is whole and right; None if the fetch failed."""
        while True:
            with self._pieces.changed:
                while not self._pieces.whole(piece.index) and not self._pieces.stopped:
                    self._blocks.hashing(False)
                    self._pieces.changed.wait()
                if self._pieces.stopped:
                    return None
            state = before.copy()
            self._blocks.hashing(True)
            self._add(state, piece)
            digest = state.copy().hexdigest()
            expected = self._known.get(piece.index)
            if expected and expected != digest:
                if piece.index not in self.repaired:
                    self.repaired.append(piece.index)
                    self.hashed = piece.start
                    self._pieces.reopen(piece.index)
                    continue
                self._known.clear()  # fetched again and the same: it is the old record that is wrong
            if expected != digest:
                self._part.journal.note(piece.index, digest)
            return state

    def _add(self, state: hashlib._Hash, piece: Piece) -> None:
        at = piece.start
        # What another process writes to the same part as well is not what we have in memory, but what is in the file.
        alone = self._part.is_ours_alone()
        while at < piece.end:
            held = self._blocks.pop(at)
            if held and alone:
                block, data = held
                state.update(data)
                at += len(data)
                self.hashed = at
            if held:
                self._blocks.give(held[0])
            if held and alone:
                continue
            end = min(piece.end, (alone and self._blocks.next(at)) or piece.end)
            count = os.preadv(self._source, [self._buffer[: end - at]], at)
            if count == 0:
                raise OSError(f"the partial file ends at byte {at}: it was cut from outside")
            state.update(self._buffer[:count])
            at += count
            self.hashed = at
        self._blocks.forget(piece.end)
