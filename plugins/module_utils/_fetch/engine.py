# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch one file over HTTP: in parallel, resumable, verified while it arrives. It appears whole and durable or not at
all.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .._result import Problem
from .hasher import Hasher
from .http_range import SourceChanged
from .part_file import Part, PartLost, content_id, discard_abandoned, part_path
from .pieces import Pieces
from .probe import RemoteFile, inspect, probe, reasons
from .progress import Progress
from .source import FetchError, Source, Upstream
from .syncer import Syncer
from .worker import Counters, RateLimit, StreamWorker, Transfer, Worker

__all__ = ["CHUNK", "FetchError", "Fetched", "Progress", "RemoteFile", "Source", "fetch", "inspect"]

# Bytes of a request. 16 MiB is fastest. A kill loses at most this much for each connection.
CHUNK = 16 << 20
# A file of less than CHUNKS chunks has smaller ones. The last pieces arrive on all connections at the same time, and
# are hashed when nothing is left to fetch. Row ``capped``: 1.36 s instead of 1.85 s. The chunk depends on the size
# alone, since a journal counts in chunks.
CHUNK_MIN = 4 << 20
CHUNKS = 128
# Bytes that stay in memory until they are hashed: the chunks of the default connections and two more. Row ``plain``: 16
# chunks take 8 % more processor time than 10, since more memory is touched.
MEMORY = 10 * CHUNK
# How often a fetch starts over because the file changed at its source, or another process removed the part.
ATTEMPTS = 4
# A source with this many connection-seconds and less than this fraction of the best source's rate is dropped.
SLOW_SECONDS = 10.0
SLOW_FRACTION = 0.1
RATE_SECONDS = 10.0  # the window of the rate that the progress shows
PROGRESS_SECONDS = 0.25


@dataclass(frozen=True)
class Fetched:
    """What was fetched.

    ``bytes_fetched``: bytes over the network, of which ``bytes_from_mirrors`` did not come from the first source.
    ``bytes_resumed``: bytes that an earlier fetch left. ``url``: the first source without secrets. ``validator``: the
    version of the file by its source, to compare before the next fetch.
    """

    size: int
    sha256: str
    bytes_fetched: int
    bytes_resumed: int
    bytes_from_mirrors: int
    seconds: float
    retries: int
    url: str
    validator: str | None


@dataclass(frozen=True)
class _Order:
    """The arguments of fetch()."""

    sources: Sequence[Source]
    destination: str
    shown_path: str
    size: int | None
    sha256: str | None
    connections: int
    max_rate: float | None
    ca_path: str | None
    timeout: float
    progress: Callable[[Progress], None] | None
    chunk: int | None


class _StartOver(Exception):
    """Start over. ``first_only``: from the first source alone, since one of the bytes was wrong."""

    def __init__(self, text: str, first_only: bool = False) -> None:
        super().__init__(text)
        self.first_only = first_only


def fetch(
    sources: Sequence[Source],
    destination: str,
    *,
    size: int | None,
    sha256: str | None,
    shown_path: str | None = None,
    connections: int = 8,
    max_rate: float | None = None,
    ca_path: str | None = None,
    timeout: float = 30.0,
    progress: Callable[[Progress], None] | None = None,
    chunk: int | None = None,
) -> Fetched:
    """Fetch a file to ``destination``. The first of ``sources`` is its origin, the others are mirrors.

    ``size`` (bytes) and ``sha256`` (hex) are None if unknown; without a sha256, mirrors are not used. ``shown_path`` is
    the path that errors name, if not the destination. ``max_rate``: bytes per second of all ``connections`` together;
    ``timeout``: seconds without a byte.

    Only a whole and verified file replaces an existing destination, by rename. The bytes of an interrupted fetch stay
    beside it, and the next fetch uses them. Raises FetchError, and nothing else for errors of the network or the disk.
    """
    destination = os.path.abspath(destination)
    order = _Order(
        sources,
        destination,
        shown_path or destination,
        size,
        sha256.lower() if sha256 else None,
        connections,
        max_rate,
        ca_path,
        timeout,
        progress,
        chunk,
    )
    _check(order)
    began = time.monotonic()
    counters = Counters()
    first_only = sha256 is None
    reason = ""
    for _attempt_number in range(ATTEMPTS):
        try:
            remote, digest, resumed = _attempt(order, sources[:1] if first_only else sources, counters)
        except _StartOver as failure:
            reason, first_only = str(failure), first_only or failure.first_only
        except OSError as failure:
            raise _disk_error(failure, order) from None
        else:
            return Fetched(
                size=remote.size,
                sha256=digest,
                bytes_fetched=counters.fetched,
                bytes_resumed=resumed,
                bytes_from_mirrors=counters.mirrored,
                seconds=time.monotonic() - began,
                retries=counters.retries,
                url=str(sources[0]),
                validator=remote.validator,
            )
    raise _error(order, f"was not fetched: {reason}. This happened {ATTEMPTS} times in a row", "Try again later.")


def _error(order: _Order, text: str, remedy: str = "") -> FetchError:
    return FetchError(Problem("", f"{order.shown_path} {text}", remedy, order.shown_path))


def _check(order: _Order) -> None:
    problems = []
    if not order.sources:
        problems.append("there is no source")
    if order.connections < 1:
        problems.append(f"the number of connections is {order.connections}, which is less than 1")
    folder = os.path.dirname(order.destination)
    if not os.path.isdir(folder):
        problems.append(f"the folder {folder} does not exist")
    if os.path.isdir(order.destination):
        problems.append(f"{order.shown_path} is a folder")
    if order.sha256 is not None and (len(order.sha256) != 64 or set(order.sha256) - set("0123456789abcdef")):
        problems.append(f"the sha256 {order.sha256!r} is not 64 hexadecimal digits")
    if order.ca_path is not None and not os.path.exists(order.ca_path):
        problems.append(f"the certificates {order.ca_path} do not exist")
    if problems:
        raise _error(order, f"cannot be fetched: {'; '.join(problems)}")


def _disk_error(failure: OSError, order: _Order) -> FetchError:
    path = failure.filename or order.shown_path
    text, remedy = f"cannot write {path}: {failure.strerror or failure}", ""
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        found = os.statvfs(os.path.dirname(order.destination))
        text += f"; {found.f_bavail * found.f_frsize} bytes are free there"
        remedy = "Make room and run this again: it continues with what was fetched."
    return FetchError(Problem("", text, remedy, order.shown_path))


def chunk_of(size: int) -> int:
    """Bytes of a chunk of a file of ``size`` bytes: 16, 8 or 4 MiB."""
    chunk = CHUNK
    while chunk > CHUNK_MIN and size < chunk * CHUNKS:
        chunk //= 2
    return chunk


def drop_slow(upstreams: Sequence[Upstream]) -> None:
    """Drop the upstreams that are far slower than the best one."""
    best = max((one.rate for one in upstreams), default=0.0)
    for one in upstreams:
        if one.busy > SLOW_SECONDS and one.rate < best * SLOW_FRACTION:
            one.drop(f"slow: {one.rate:.0f} bytes/s per connection, where another source gives {best:.0f}")


def _attempt(order: _Order, sources: Sequence[Source], counters: Counters) -> tuple[RemoteFile, str, int]:
    """Fetch the file once: what the source said, the sha256, the bytes resumed.

    Raises FetchError, _StartOver or OSError.
    """
    upstreams = [Upstream(source, number > 0) for number, source in enumerate(sources)]
    remote, upstreams = probe(upstreams, order.size, order.ca_path, order.timeout, counters)
    if order.sha256 is None and remote.validator is None:
        text = f"cannot be verified: {upstreams[0]} sends neither a strong ETag nor Last-Modified"
        raise _error(order, text, "Give its sha256.")
    chunk = order.chunk or chunk_of(remote.size)
    content = content_id(order.sha256, remote.validator)
    discard_abandoned(order.destination, part_path(order.destination, content))
    part = Part(order.destination, content, remote.size, chunk)
    try:
        connections = order.connections if remote.ranged else 1
        pieces = Pieces(remote.size, chunk, part.facts.have, MEMORY // chunk)
        resumed = pieces.bytes()
        transfer = Transfer(
            upstreams,
            pieces,
            part,
            Syncer(part.handle, pieces, part.journal.record, chunk, connections),
            counters,
            RateLimit(order.max_rate),
            None if order.sha256 else remote.validator,
            order.ca_path,
            order.timeout,
        )
        kind = Worker if remote.ranged else StreamWorker
        digest = _transfer(order, transfer, [kind(transfer, number) for number in range(connections)], resumed)
        if order.sha256 in (None, digest):
            part.deliver()
            return remote, digest, resumed
        part.discard()
        text = f"{remote.url} has the sha256 {digest}; expected {order.sha256}"
        if resumed or len(upstreams) > 1:
            raise _StartOver(text, first_only=True)
        raise _error(order, f"was discarded: {text}", "Check the sha256, and whether the source has another file now.")
    except SourceChanged as failure:
        part.discard()
        raise _StartOver(str(failure)) from None
    except PartLost as failure:
        if _is_delivered(order, remote.size):
            return remote, str(order.sha256), 0
        raise _StartOver(str(failure)) from None
    finally:
        part.close()


def _transfer(order: _Order, transfer: Transfer, workers: Sequence[Worker], resumed: int) -> str:
    """Fetch and hash until the file is whole. Returns the sha256, raises what ended the transfer."""
    pieces = transfer.pieces
    hasher = Hasher(transfer.part, pieces)
    rates: deque[tuple[float, int]] = deque()
    try:
        for thread in (transfer.syncer, hasher, *workers):
            thread.start()
        shown_at = 0.0
        while not pieces.stopped:
            with pieces.changed:
                if not pieces.stopped:
                    pieces.changed.wait(PROGRESS_SECONDS)
            if time.monotonic() - shown_at >= PROGRESS_SECONDS:
                shown_at = time.monotonic()
                drop_slow(transfer.usable())
                for worker in workers:
                    worker.abort(transfer.timeout)
                if order.progress is not None:
                    order.progress(_progress(pieces, hasher.hashed, rates, resumed))
    except BaseException as failure:
        pieces.fail(failure)
        raise
    finally:
        transfer.syncer.end()
        # Another source has already delivered what a slow one was asked for.
        for worker in workers:
            worker.abort(0.0)
    if pieces.failure is None:
        return hasher.digest or ""
    if isinstance(pieces.failure, FetchError):
        kept = f"{pieces.bytes()} of {pieces.size} bytes are kept for the next try."
        raise _error(order, f"could not be fetched: {reasons(transfer.upstreams)}", kept)
    raise pieces.failure


def _is_delivered(order: _Order, size: int) -> bool:
    """Whether the destination is the wanted file: the process that removed our part may have delivered it."""
    state = hashlib.sha256()
    try:
        if order.sha256 is None or os.stat(order.destination).st_size != size:
            return False
        with open(order.destination, "rb") as file:
            for block in iter(lambda: file.read(CHUNK), b""):
                state.update(block)
    except FileNotFoundError:
        return False
    return state.hexdigest() == order.sha256


def _progress(pieces: Pieces, hashed: int, rates: deque[tuple[float, int]], resumed: int) -> Progress:
    """The progress, with the rate over the last RATE_SECONDS of the phase."""
    verify = not pieces.missing
    done = hashed if verify else pieces.bytes()
    now = time.monotonic()
    if rates and rates[-1][1] > done:
        rates.clear()  # the phase changed, or a damaged piece is fetched again
    rates.append((now, done))
    while now - rates[0][0] > RATE_SECONDS:
        rates.popleft()
    since, before = rates[0]
    rate = (done - before) / (now - since) if now > since else 0.0
    return Progress(done, pieces.size, resumed, rate, "verify" if verify else "download")
