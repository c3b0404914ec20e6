# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection of a fetch: a thread that takes pieces, asks a place for them, writes them, and claims what is on the
disk.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.memory import page_aligned
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.pace import Pace
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.part import Part
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.pieces import Piece, Pieces
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.ranges import (
    Answer,
    Client,
    Refused,
    Retry,
    failed,
    refused,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.source import FetchError, Place

# A read returns when it has all that it asked for. Large reads cost least; on a slow line small ones tell soonest what
# came, and lose least when the line breaks.
READ_MIN = 16 << 10
READ_MAX = 1 << 20
READ_FAST = 0.05
READ_SLOW = 0.5


@dataclass
class Tally:
    """What a fetch did, over all its rounds; bytes are of bodies."""

    fetched: int = 0
    mirrored: int = 0
    retries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, count: int, mirror: bool) -> None:
        with self.lock:
            self.fetched += count
            self.mirrored += count if mirror else 0

    def retry(self) -> None:
        with self.lock:
            self.retries += 1


@dataclass
class Job:
    """What the threads of one fetch share."""

    places: list[Place]
    pieces: Pieces
    part: Part
    tally: Tally
    pace: Pace
    if_range: str | None
    ca_path: str | None
    timeout: float

    def alive(self) -> list[Place]:
        return [place for place in self.places if place.dropped is None]


class Worker(threading.Thread):
    """Fetches until the job's pieces are stopped; any failure that is not a place's ends the job."""

    def __init__(self, job: Job, number: int) -> None:
        super().__init__(name=f"fetch-{number}", daemon=True)
        self._job = job
        self._source = os.dup(job.part.handle)
        self._read = READ_MIN
        self._buffer = page_aligned(READ_MAX)

    def run(self) -> None:
        client = None
        try:
            client = Client(self._job.ca_path, self._job.timeout)
            while True:
                chosen = self._choose()
                if chosen is None:
                    return
                self._attempt(client, *chosen)
        except BaseException as failure:  # pylint: disable=broad-exception-caught  # the fetching thread raises it
            self._job.pieces.fail(failure)
        finally:
            if client is not None:
                client.close()
            os.close(self._source)

    def _choose(self) -> tuple[Place, Piece] | None:
        """A place with the fewest connections and a piece to ask it for, when there are; None when the job is over."""
        pieces = self._job.pieces
        with pieces.changed:
            while not pieces.stopped:
                now = time.monotonic()
                alive = self._job.alive()
                ready = [place for place in alive if place.not_before <= now]
                if not alive:
                    pieces.fail(FetchError("no source is left"))
                elif not ready:
                    pieces.changed.wait(min(place.not_before for place in alive) - now)
                else:
                    place = min(ready, key=lambda one: one.active)
                    piece = pieces.take(self, place)
                    if piece is not None:
                        place.active += 1
                        return place, piece
                    pieces.changed.wait(0.5)
        return None

    def _attempt(self, client: Client, place: Place, piece: Piece) -> None:
        began = time.monotonic()
        generation = place.address()[2]
        try:
            self._pull(client, place, piece)
        except Retry as failure:
            self._read = READ_MIN
            self._job.tally.retry()
            failed(place, failure, began, generation, len(self._job.alive()) > 1)
        except Refused as failure:
            self._job.tally.retry()
            piece.renewed = refused(place, failure, not piece.renewed)
        finally:
            with self._job.pieces.changed:
                place.active -= 1
            self._job.pieces.give_back(self, piece)

    def _pull(self, client: Client, place: Place, piece: Piece) -> None:
        """Fetch ``piece`` from where it stands to its end."""
        job = self._job
        mark = time.monotonic()
        answer = client.ask(place, piece.at, piece.end, job.pieces.size, job.if_range)
        try:
            if not answer.ranged:
                raise Retry("answered with the whole file (HTTP 200) to a request for a part of it")
            at = answer.start
            while at < (answer.end or 0) and not job.pieces.stopped:
                data = self._next(client, answer, (answer.end or 0) - at, mark)
                at += len(data)
                job.tally.add(len(data), place.mirror)
                place.moved(len(data), time.monotonic() - mark)
                piece.renewed = False
                if not self._write(piece, data):
                    return
                job.pace.wait(len(data))
                mark = time.monotonic()
            client.finish(answer)
        finally:
            answer.close()
        if piece.at == piece.end:
            self._claim(piece)

    def _next(self, client: Client, answer: Answer, limit: int, mark: float) -> memoryview:
        """The next bytes of the body, at most ``limit``; raises Retry where there is none."""
        most = READ_MAX if not self._job.pace.rate else min(max(int(self._job.pace.rate / 8), READ_MIN), READ_MAX)
        count = client.read(answer, self._buffer[: min(self._read, most, limit)])
        took = time.monotonic() - mark
        if not count:
            raise Retry(f"the body ended {limit} bytes early")
        if took < READ_FAST:
            self._read = min(self._read * 2, READ_MAX)
        elif took > READ_SLOW:
            self._read = max(self._read // 2, READ_MIN)
        return self._buffer[:count]

    def _write(self, piece: Piece, data: memoryview) -> bool:
        """Write to the part while it is ours; False when there is nothing more to do for this piece."""
        if not self._job.part.check():
            self._job.pieces.done_elsewhere()
            return False
        return piece.write(self, self._source, data)

    def _claim(self, piece: Piece) -> None:
        """Sync, then say so. A sync covers all that was written before: the others' pieces are claimed so far."""
        pieces = self._job.pieces
        standing = pieces.standing()
        os.fdatasync(self._source)
        self._job.part.journal.claim([*standing, (piece.index, piece.end - piece.start)])
        pieces.finish(self, piece)


class Stream(Worker):
    """The only connection to a server that knows no ranges: every try begins at byte 0, and skips what is written."""

    def _pull(self, client: Client, place: Place, piece: Piece) -> None:
        job = self._job
        mark = time.monotonic()
        answer = client.ask(place, 0, None, job.pieces.size, job.if_range)
        at = 0
        current: Piece | None = piece
        try:
            while current is not None and not job.pieces.stopped:
                data = self._next(client, answer, current.end - at, mark)
                fresh = data[max(0, current.at - at) :]
                at += len(data)
                job.tally.add(len(data), place.mirror)
                if fresh:
                    place.moved(len(fresh), time.monotonic() - mark)
                    if not self._write(current, fresh):
                        return
                if current.at == current.end:
                    self._claim(current)
                    with job.pieces.changed:
                        current = job.pieces.take(self, place)
                job.pace.wait(len(data))
                mark = time.monotonic()
        finally:
            answer.close()
            if current is not None and current is not piece:
                job.pieces.give_back(self, current)
