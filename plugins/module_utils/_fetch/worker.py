# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection of a fetch: a thread that takes pieces, asks a place for them and writes them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field

from .buffers import Blocks, Filling
from .direct import ALIGN, Writer
from .http_range import Answer, Client, Refused, Retry, failed, refused
from .part_file import Part
from .pieces import Piece, Pieces
from .rate_limit import Pace
from .source import Address, FetchError, Place
from .syncer import Syncer

# A read returns when it has all that it asked for. Large reads cost least, above all in turns that the interpreter's
# threads take: with 4 MiB instead of 1 MiB, 2 GiB took a tenth less. On a slow line small ones tell soonest what came,
# and lose least when the line breaks.
READ_MIN = 16 << 10
READ_MAX = 4 << 20
READ_FAST = 0.05
READ_SLOW = 0.5
NICE = 10  # see be_nice


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
    blocks: Blocks
    syncer: Syncer
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
        self._writer = Writer(job.part.path, job.part.handle)
        self._filling = Filling(job.blocks)
        self._read = READ_MIN
        self._reading: tuple[float, Answer] | None = None
        self._cut = False

    def cut(self, after: float) -> None:
        """Break the connection if what it was asked for last takes longer than ``after`` seconds.

        The system's own timeout is of no use against a server that sends a byte now and then.
        """
        reading = self._reading
        if reading is not None and time.monotonic() - reading[0] > after:
            self._cut = True
            reading[1].cut()

    def run(self) -> None:
        client = None
        try:
            be_nice()
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
            self._writer.close()

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
        """Fetch ``piece`` from ``place``, once more from a fresh address if it is refused at one that others used."""
        began = time.monotonic()
        address: Address | None = None
        generation = place.generation
        try:
            while True:
                try:
                    self._pull(client, place, piece, address)
                    return
                except Refused as failure:
                    self._job.tally.retry()
                    address = refused(place, failure)
                    if address is None:
                        return
        except Retry as failure:
            self._read = READ_MIN
            self._job.tally.retry()
            failed(place, failure, began, generation, len(self._job.alive()) > 1)
        finally:
            with self._job.pieces.changed:
                place.active -= 1
            self._job.pieces.give_back(self, piece)

    def _pull(self, client: Client, place: Place, piece: Piece, address: Address | None) -> None:
        """Fetch ``piece`` from where it stands to its end."""
        job = self._job
        job.syncer.admit()
        start = piece.at
        if start < piece.end:  # or it is whole by now, by another process or by who had it before
            self._bring(client, place, piece, start, address)
        if piece.at == piece.end:
            job.pieces.finish(self, piece)

    def _bring(self, client: Client, place: Place, piece: Piece, start: int, address: Address | None) -> None:
        """Ask for what is left of ``piece`` from byte ``start`` of the file, and write it as it comes."""
        job = self._job
        answer = self._ask(client, place, start, piece.end, address)
        try:
            if not answer.ranged:
                raise Retry("answered with the whole file (HTTP 200) to a request for a part of it")
            at = answer.start
            while at < (answer.end or 0) and not job.pieces.stopped:
                count, kept = self._block(client, answer, place, piece, at, (answer.end or 0) - at)
                at += count
                if not kept:
                    return
            client.finish(answer)
        finally:
            self._filling.end()  # before the piece is called whole, and so hashed
            answer.close()

    def _ask(self, client: Client, place: Place, start: int, end: int | None, address: Address | None) -> Answer:
        began = time.monotonic()
        answer = client.ask(place, start, end, self._job.pieces.size, self._job.if_range, address)
        place.waited(time.monotonic() - began)
        return answer

    def _block(
        self, client: Client, answer: Answer, place: Place, piece: Piece, at: int, limit: int
    ) -> tuple[int, bool]:
        """Read the next bytes of the body, at most ``limit``, and write those that ``piece`` lacks.

        Returns their number, and whether the piece is still ours. Raises Retry where there is none.
        """
        job = self._job
        skip = max(0, piece.at - at)
        room = self._filling.room(piece.at)
        most = min(job.syncer.batch, int(job.pace.rate / 8) if job.pace.rate else READ_MAX)
        wanted, written = min(self._read, max(most - most % ALIGN, READ_MIN), len(room), skip or limit, limit), 0
        job.syncer.reserve(wanted)
        try:
            mark = time.monotonic()
            count = self._fill(client, answer, room[:wanted], limit)
            took = time.monotonic() - mark
            job.tally.add(count, place.mirror)
            if not skip:
                place.moved(count, took)
                if not self._write(piece, room[:count], len(room) % ALIGN == 0):
                    self._filling.drop()  # it may be hashed by now
                    return count, False
                written = count
                self._filling.add(count)
        finally:
            job.syncer.wrote(wanted, written)
        if took < READ_FAST:
            self._read = min(self._read * 2, READ_MAX)
        elif took > READ_SLOW:
            self._read = max(self._read // 2, READ_MIN)
        job.pace.wait(count)
        return count, True

    def _fill(self, client: Client, answer: Answer, into: memoryview, limit: int) -> int:
        """Read all of ``into``, less at the end of the body; raises Retry where there is nothing."""
        self._cut = False
        self._reading = (time.monotonic(), answer)
        try:
            count = client.read(answer, into)
        except Retry:
            if not self._cut:
                raise
            count = 0
        finally:
            self._reading = None
        if self._cut:
            raise Retry(f"gave less than {len(into)} bytes in {self._job.timeout:g} s")
        if not count:
            raise Retry(f"the body ended {limit} bytes early")
        return count

    def _write(self, piece: Piece, data: memoryview, aligned: bool) -> bool:
        """Write to the part while it is ours; False when there is nothing more to do for this piece."""
        if not self._job.part.check():
            self._job.pieces.done_elsewhere()
            return False
        return piece.write(self, self._writer, data, aligned)


def be_nice() -> None:
    """Have this thread give way to the one that hashes, for which all others wait in the end, and to a server here."""
    with contextlib.suppress(OSError):
        me = threading.get_native_id()  # to Linux each thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, me, min(os.getpriority(os.PRIO_PROCESS, me) + NICE, 19))


class Stream(Worker):
    """The only connection to a server that knows no ranges: every try begins at byte 0, and skips what is written."""

    def _pull(self, client: Client, place: Place, piece: Piece, address: Address | None) -> None:
        job = self._job
        answer = self._ask(client, place, 0, None, address)
        at = 0
        current: Piece | None = piece
        try:
            while current is not None and not job.pieces.stopped:
                count, kept = self._block(client, answer, place, current, at, current.end - at)
                at += count
                if not kept:
                    return
                if current.at == current.end:
                    self._filling.end()
                    job.pieces.finish(self, current)
                    with job.pieces.changed:
                        current = job.pieces.take(self, place)
        finally:
            self._filling.end()
            answer.close()
            if current is not None and current is not piece:
                job.pieces.give_back(self, current)
