# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections of a fetch: threads that take pieces, request them and write them, within the rate limit.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from .buffers import ALIGN, Writer, page_aligned
from .http_range import RangeClient, Response
from .part_file import Part
from .pieces import Piece, Pieces
from .source import Address, FetchError, Rejected, Retry, Upstream
from .syncer import Syncer

# Bytes of one read. Large reads cost least: row ``plain`` took a tenth less time with 4 MiB than with 1 MiB. On a slow
# line, small reads show early what arrived, and lose least when the line breaks.
READ_MIN = 16 << 10
READ_MAX = 4 << 20
# A read that took fewer seconds makes the next one larger, one that took more makes it smaller.
READ_FAST = 0.05
READ_SLOW = 0.5
# Memory of a worker for a piece without a buffer.
SCRATCH = 1 << 20


class RateLimit:
    """A limit on the bytes per second of all connections together. ``rate`` None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        """Return when ``count`` bytes that were just read are within the limit. A full socket slows the sender."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self.rate
            pause = self._free_at - now
        time.sleep(pause)


@dataclass
class Counters:
    """What a fetch did, over all its attempts. The bytes are those of bodies."""

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
class Transfer:
    """What the threads of one fetch share."""

    upstreams: list[Upstream]
    pieces: Pieces
    part: Part
    syncer: Syncer
    counters: Counters
    limit: RateLimit
    if_range: str | None
    ca_path: str | None
    timeout: float

    def usable(self) -> list[Upstream]:
        return [upstream for upstream in self.upstreams if upstream.dropped is None]


class Worker(threading.Thread):
    """Fetches pieces until the transfer is stopped. A failure that no upstream causes ends the transfer."""

    def __init__(self, transfer: Transfer, number: int) -> None:
        super().__init__(name=f"fetch-{number}", daemon=True)
        self._transfer = transfer
        self._writer = Writer(transfer.part.path, transfer.part.handle)
        self._scratch = page_aligned(SCRATCH)
        self._size = READ_MIN
        self._reading: tuple[float, Response] | None = None
        self._aborted = False

    def abort(self, after: float) -> None:
        """End the connection if its current read takes longer than ``after`` seconds.

        The timeout of the socket does not help against a server that sends a byte now and then.
        """
        reading = self._reading
        if reading is not None and time.monotonic() - reading[0] > after:
            self._aborted = True
            reading[1].abort()

    def run(self) -> None:
        client = None
        try:
            client = RangeClient(self._transfer.ca_path, self._transfer.timeout)
            while True:
                chosen = self._choose()
                if chosen is None:
                    return
                self._attempt(client, *chosen)
        except BaseException as failure:  # pylint: disable=broad-exception-caught  # the fetching thread raises it
            self._transfer.pieces.fail(failure)
        finally:
            if client is not None:
                client.close()
            self._writer.close()

    def _choose(self) -> tuple[Upstream, Piece] | None:
        """The upstream with the fewest requests and a piece to request; None when the transfer is over."""
        pieces = self._transfer.pieces
        with pieces.changed:
            while not pieces.stopped:
                pieces.wait_for_buffer()
                now = time.monotonic()
                usable = self._transfer.usable()
                ready = [upstream for upstream in usable if upstream.not_before <= now]
                if not usable:
                    pieces.fail(FetchError("no source is left"))
                elif not ready:
                    pieces.changed.wait(min(upstream.not_before for upstream in usable) - now)
                else:
                    upstream = min(ready, key=lambda one: one.active)
                    piece = pieces.take(self, upstream)
                    if piece is not None:
                        upstream.active += 1
                        return upstream, piece
                    pieces.changed.wait(0.5)
        return None

    def _attempt(self, client: RangeClient, upstream: Upstream, piece: Piece) -> None:
        """Fetch ``piece`` from ``upstream``; once more from a new address if the shared one is rejected."""
        began = time.monotonic()
        address: Address | None = None
        generation = upstream.generation
        try:
            while True:
                try:
                    self._fetch(client, upstream, piece, address)
                    return
                except Rejected as failure:
                    self._transfer.counters.retry()
                    address = upstream.new_address(failure)
                    if address is None:
                        return
        except Retry as failure:
            self._size = READ_MIN
            self._transfer.counters.retry()
            upstream.failed(failure, began, generation, len(self._transfer.usable()) > 1)
        finally:
            with self._transfer.pieces.changed:
                upstream.active -= 1
            self._transfer.pieces.give_back(self, piece)

    def _fetch(self, client: RangeClient, upstream: Upstream, piece: Piece, address: Address | None) -> None:
        """Fetch what is missing of ``piece``."""
        transfer = self._transfer
        transfer.syncer.wait_to_request()
        start = piece.at
        if start < piece.end:  # else another process, or the worker before this one, has completed it
            response = self._request(client, upstream, start, piece.end, address)
            try:
                if not response.ranged:
                    raise Retry("answered with the whole file (HTTP 200) to a request for a part of it")
                at, end = response.start, response.end or 0
                while at < end and piece.owner is self:
                    count = self._copy(client, response, upstream, piece, at, end - at)
                    if not count:
                        return
                    at += count
            finally:
                response.close()
        if piece.at == piece.end:
            transfer.pieces.finish(self, piece)

    def _request(
        self, client: RangeClient, upstream: Upstream, start: int, end: int | None, address: Address | None
    ) -> Response:
        began = time.monotonic()
        transfer = self._transfer
        response = client.request(upstream, start, end, transfer.pieces.size, transfer.if_range, address)
        upstream.waited(time.monotonic() - began)
        return response

    def _copy(
        self, client: RangeClient, response: Response, upstream: Upstream, piece: Piece, at: int, limit: int
    ) -> int:
        """Read the body's next bytes, at most ``limit``, which start at ``at`` in the file; write those not there yet.

        Returns their number, 0 if the piece is no longer ours. Raises Retry if there are none.
        """
        transfer = self._transfer
        present = max(0, piece.at - at)
        room = piece.room(self)
        if room is None:
            room = self._scratch
        rate = transfer.limit.rate
        most = min(transfer.syncer.batch, int(rate / 8) if rate else READ_MAX)
        wanted, written = min(self._size, max(most - most % ALIGN, READ_MIN), len(room), present or limit, limit), 0
        transfer.syncer.wait_to_read(wanted)
        try:
            began = time.monotonic()
            count = self._read(client, response, room[:wanted], limit)
            seconds = time.monotonic() - began
            transfer.counters.add(count, upstream.mirror)
            if not present:
                upstream.received(count, seconds)
                if not self._write(piece, room[:count]):
                    return 0
                written = count
        finally:
            transfer.syncer.wrote(wanted, written)
        if seconds < READ_FAST:
            self._size = min(self._size * 2, READ_MAX)
        elif seconds > READ_SLOW:
            self._size = max(self._size // 2, READ_MIN)
        transfer.limit.wait(count)
        return count

    def _read(self, client: RangeClient, response: Response, into: memoryview, limit: int) -> int:
        """Fill ``into``, except at the end of the body. Raises Retry if nothing arrives."""
        self._aborted = False
        self._reading = (time.monotonic(), response)
        try:
            count = client.read(response, into)
        except Retry:
            if not self._aborted:
                raise
            count = 0
        finally:
            self._reading = None
        if self._aborted:
            raise Retry(f"sent less than {len(into)} bytes in {self._transfer.timeout:g} s")
        if not count:
            raise Retry(f"the body ended {limit} bytes early")
        return count

    def _write(self, piece: Piece, data: memoryview) -> bool:
        """Write to the part. False if the piece is no longer ours."""
        if not self._transfer.part.check():
            self._transfer.pieces.done_elsewhere()
            return False
        return piece.write(self, self._writer, data)


class StreamWorker(Worker):
    """The only connection to a server without ranges: every request starts at byte 0, and skips what is written."""

    def _fetch(self, client: RangeClient, upstream: Upstream, piece: Piece, address: Address | None) -> None:
        pieces = self._transfer.pieces
        response = self._request(client, upstream, 0, None, address)
        at = 0
        current: Piece | None = piece
        try:
            while current is not None and not pieces.stopped:
                count = self._copy(client, response, upstream, current, at, current.end - at)
                if not count:
                    return
                at += count
                if current.at == current.end:
                    pieces.finish(self, current)
                    with pieces.changed:
                        pieces.wait_for_buffer()
                        current = pieces.take(self, upstream)
        finally:
            response.close()
            if current is not None and current is not piece:
                pieces.give_back(self, current)
