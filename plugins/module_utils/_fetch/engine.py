# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch one file over HTTP: in parallel, resumed after any end, verified on the way, whole and durable or not there.

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

from .buffers import Blocks
from .hasher import Frontier
from .http_range import Changed
from .part_file import Gone, Part, content_id, discard_abandoned, part_path
from .pieces import Pieces
from .probe import Remote, inspect, probe, reasons
from .progress import Progress
from .rate_limit import Pace
from .source import FetchError, Place, Source
from .syncer import Syncer
from .worker import READ_MAX, READ_MIN, Job, Stream, Tally, Worker

__all__ = ["CHUNK", "FetchError", "Fetched", "Progress", "Remote", "Source", "fetch", "inspect"]

# What is asked for at once (facts: 16 MiB is fastest). At most so much per connection is fetched again when the process
# dies.
CHUNK = 16 << 20
# Chunks of a smaller file are smaller, down to LEAST: in order they are hashed, and what all connections bring last, at
# the same moment, is hashed when nothing is left to be fetched. 512 MiB over 16 connections took 1.85 s with chunks of
# 16 MiB and 1.36 s with those of 4 MiB. It depends on the size alone, since the journal of an earlier fetch counts in
# the same chunks.
CHUNK_LEAST = 4 << 20
CHUNKS = 128
# Bytes that stay in memory until they are hashed: as much as the default connections can be ahead of it.
MEMORY = 10 * CHUNK
# How often a file may change at its source or its part vanish under us before we say so.
ROUNDS = 4
# A place that had this many connection-seconds and gives less than this part of the best one's rate is dropped.
SLOW_SECONDS = 10.0
SLOW_PART = 0.1
RATE_SECONDS = 10.0


@dataclass(frozen=True)
class Fetched:
    """What was done. ``bytes_fetched`` came over the network, also twice; ``bytes_from_mirrors`` of them not from the
    first source.

    ``bytes_resumed`` were on the disk already. ``url`` is the first source's, as it may be shown; ``validator`` what
    the source said the file's version is, to be compared before the next fetch.
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


def chunk_of(size: int) -> int:
    """Bytes of a chunk of a file of ``size`` bytes: 16, 8 or 4 MiB, so that there are at least CHUNKS if possible."""
    chunk = CHUNK
    while chunk > CHUNK_LEAST and size < chunk * CHUNKS:
        chunk //= 2
    return chunk


def block_of(connections: int) -> int:
    """Bytes of a block of MEMORY: as much as one read, and so many blocks that few of them are just being filled."""
    block = READ_MAX
    while block > READ_MIN and MEMORY // block < 4 * connections:
        block //= 2
    return block


class _StartOver(Exception):
    """Begin again; ``alone``: from the first source only, as some other byte was bad."""

    def __init__(self, words: str, alone: bool = False) -> None:
        super().__init__(words)
        self.alone = alone


def fetch(
    sources: Sequence[Source],
    destination: str,
    *,
    size: int | None,
    sha256: str | None,
    shown: str | None = None,
    connections: int = 8,
    max_rate: float | None = None,
    ca_path: str | None = None,
    timeout: float = 30.0,
    progress: Callable[[Progress], None] | None = None,
    chunk: int | None = None,
) -> Fetched:
    """Make ``destination`` the file that ``sources`` hold; the first is where it is from, the others are mirrors of it.

    ``size`` in bytes and ``sha256`` (hex) are None where nobody knows them; without a sha256 mirrors are not used.
    ``shown``: what errors call the destination (default: its path).
    ``max_rate`` in bytes per second over all ``connections``; ``timeout`` in seconds without a byte. An existing
    destination is replaced by rename, and only by a whole and verified file. What arrived of an interrupted fetch is
    kept beside it and used by the next. Raises FetchError, and nothing else for what a network or a disk can do.
    """
    destination = os.path.abspath(destination)
    shown = shown or destination
    _check_arguments(sources, destination, shown, sha256, ca_path)
    sha256 = sha256.lower() if sha256 else None
    began = time.monotonic()
    tally = Tally()
    alone = False
    again: _StartOver | None = None
    for _round in range(ROUNDS):
        round_ = _Round(sources[:1] if alone else sources, destination, shown, ca_path, timeout, tally)
        try:
            remote, digest, resumed = round_.run(size, sha256, connections, max_rate, progress, chunk, alone)
            return Fetched(
                size=remote.size,
                sha256=digest,
                bytes_fetched=tally.fetched,
                bytes_resumed=resumed,
                bytes_from_mirrors=tally.mirrored,
                seconds=time.monotonic() - began,
                retries=tally.retries,
                url=str(sources[0]),
                validator=remote.validator,
            )
        except _StartOver as failure:
            again, alone = failure, alone or failure.alone
        except OSError as failure:
            raise FetchError(_disk_words(failure, destination, shown)) from None
    raise FetchError(f"{shown}: {again}; it happened {ROUNDS} times in a row, so this was given up")


def _check_arguments(
    sources: Sequence[Source], destination: str, shown: str, sha256: str | None, ca_path: str | None
) -> None:
    problems = []
    if not sources:
        problems.append("there is no source")
    if not os.path.isdir(os.path.dirname(destination)):
        problems.append(f"the folder {os.path.dirname(destination)} does not exist")
    if os.path.isdir(destination):
        problems.append(f"{destination} is a folder")
    if sha256 is not None and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
        problems.append(f"the sha256 {sha256!r} is not 64 hexadecimal digits")
    if ca_path is not None and not os.path.exists(ca_path):
        problems.append(f"the certificates {ca_path} do not exist")
    if problems:
        raise FetchError(f"{shown} cannot be fetched: {'; '.join(problems)}")


def _disk_words(failure: OSError, destination: str, shown: str) -> str:
    words = f"{shown}: {failure.strerror or failure}"
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        found = os.statvfs(os.path.dirname(destination))
        words += (
            f"; {found.f_bavail * found.f_frsize} bytes are free there. Make room and run this again: what came is kept"
        )
    return f"cannot write {words}"


def drop_slow(alive: Sequence[Place]) -> None:
    """Drop the places that had their time and give far less than the best one."""
    best = max((place.rate for place in alive), default=0.0)
    for place in alive:
        if place.busy > SLOW_SECONDS and place.rate < best * SLOW_PART:
            place.drop(f"slow: {place.rate:.0f} bytes/s per connection, where another source gives {best:.0f}")


class _Round:
    """One attempt at a whole fetch, with one part, from the first question to the rename."""

    def __init__(
        self, sources: Sequence[Source], destination: str, shown: str, ca_path: str | None, timeout: float, tally: Tally
    ) -> None:
        self._places = [Place(source, number > 0) for number, source in enumerate(sources)]
        self._destination = destination
        self._shown = shown
        self._ca_path = ca_path
        self._timeout = timeout
        self._tally = tally

    def run(
        self,
        size: int | None,
        sha256: str | None,
        connections: int,
        max_rate: float | None,
        progress: Callable[[Progress], None] | None,
        chunk: int | None,
        last: bool,
    ) -> tuple[Remote, str, int]:
        """What the source said, the sha256, the bytes resumed; raises FetchError, _StartOver or OSError."""
        tried = self._places if sha256 else self._places[:1]
        remote, places = probe(tried, size, self._ca_path, self._timeout, self._tally)
        if sha256 is None and remote.validator is None:
            raise FetchError(
                f"{places[0]} gives neither a strong ETag nor Last-Modified, so nothing would prove that what arrives "
                "is one file. Give its sha256"
            )
        chunk = chunk or chunk_of(remote.size)
        content = content_id(sha256, remote.validator)
        discard_abandoned(self._destination, part_path(self._destination, content))
        part = Part(self._destination, content, remote.size, chunk)
        try:
            pieces = Pieces(remote.size, chunk, part.facts.have)
            resumed = pieces.bytes()
            if_range = None if sha256 else remote.validator
            syncer = Syncer(part.handle, pieces, part.journal.claim, chunk, connections if remote.ranged else 1)
            pace = Pace(max_rate)
            blocks = Blocks(block := block_of(connections), MEMORY // block)
            job = Job(places, pieces, part, blocks, syncer, self._tally, pace, if_range, self._ca_path, self._timeout)
            digest = self._arrive(job, connections if remote.ranged else 0, progress, resumed)
            if sha256 in (None, digest):
                part.deliver()
                return remote, digest, resumed
            part.discard()
            words = f"{self._shown}: {remote.url} gave a file of sha256 {digest}, not {sha256}; nothing was kept"
            if not last and (resumed or len(places) > 1):
                raise _StartOver(words, alone=True)
            raise FetchError(f"{words}. Check the sha256, or whether the file at the source is another one")
        except Changed as failure:
            part.discard()
            raise _StartOver(str(failure)) from None
        except Gone as failure:
            done = self._delivered(remote.size, sha256)
            if done:
                return remote, done, 0
            raise _StartOver(str(failure)) from None
        finally:
            part.close()

    def _arrive(self, job: Job, connections: int, progress: Callable[[Progress], None] | None, resumed: int) -> str:
        """Fetch and hash until all is here; the sha256. Raises what ended it."""
        pieces = job.pieces
        frontier = Frontier(job.part, pieces, job.blocks)
        meter: deque[tuple[float, int]] = deque()
        workers = [Worker(job, number) for number in range(connections)] or [Stream(job, 0)]
        try:
            for thread in (job.syncer, frontier, *workers):
                thread.start()
            told = 0.0
            while not pieces.stopped:
                with pieces.changed:
                    if not pieces.stopped:
                        pieces.changed.wait(0.25)
                if time.monotonic() - told >= 0.25:
                    told = time.monotonic()
                    drop_slow(job.alive())
                    for worker in workers:
                        worker.cut(job.timeout)
                    if progress is not None:
                        progress(_progress(job, frontier, meter, resumed))
        except BaseException as failure:
            pieces.fail(failure)
            raise
        finally:
            job.syncer.end()
            # What a slow server is still asked for came from another one meanwhile.
            for worker in workers:
                worker.cut(0.0)
        if pieces.failure is None:
            return frontier.digest or ""
        if isinstance(pieces.failure, FetchError):
            kept = f"{pieces.bytes()} of {pieces.size} bytes are kept for the next try"
            raise FetchError(f"{self._shown} could not be fetched: {reasons(job.places)}. {kept}")
        raise pieces.failure

    def _delivered(self, size: int, sha256: str | None) -> str | None:
        """The sha256 of the destination if it is the wanted one: who took our part away may have brought it there."""
        try:
            if sha256 is None or os.stat(self._destination).st_size != size:
                return None
            state = hashlib.sha256()
            with open(self._destination, "rb") as file:
                for block in iter(lambda: file.read(CHUNK), b""):
                    state.update(block)
        except FileNotFoundError:
            return None
        return sha256 if state.hexdigest() == sha256 else None


def _progress(job: Job, frontier: Frontier, meter: deque[tuple[float, int]], resumed: int) -> Progress:
    """How far it is, with the rate over the last RATE_SECONDS of the phase."""
    verify = not job.pieces.left
    done = frontier.hashed if verify else job.pieces.bytes()
    now = time.monotonic()
    if meter and meter[-1][1] > done:
        meter.clear()  # the phase changed, or a damaged piece is fetched again
    meter.append((now, done))
    while now - meter[0][0] > RATE_SECONDS:
        meter.popleft()
    since, before = meter[0]
    rate = (done - before) / (now - since) if now > since else 0.0
    return Progress(done, job.pieces.size, resumed, rate, "verify" if verify else "download")
