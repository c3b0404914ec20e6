# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing what was written to the disk, and claiming it: a thread that syncs while the others fetch.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable

from .pieces import Pieces

# What is not claimed yet is fetched again after a kill. A disk that is slower than the line slows the line down when
# that is this much for each connection; it would have to be waited for at the end anyway.
UNCLAIMED = 3 << 20
# A sync begins when this part of the limit is written, or when the oldest byte waits for these seconds.
BATCH = 4
SECONDS = 1.0


class Syncer(threading.Thread):
    """Syncs and claims, again and again, until the job's pieces are stopped; its failure ends the job.

    ``connections`` is the number of those who fetch. Each asks by ``admit`` before a request and by ``reserve`` before
    it reads some of the answer, and says by ``wrote`` what became of that.
    """

    def __init__(
        self,
        handle: int,
        pieces: Pieces,
        claim: Callable[[Iterable[tuple[int, int]]], None],
        chunk: int,
        connections: int,
    ) -> None:
        super().__init__(name="sync", daemon=True)
        self._source = os.dup(handle)
        self._pieces = pieces
        self._claim = claim
        self._most = connections * chunk
        self._limit = min(self._most, max(chunk, connections * UNCLAIMED))
        # Bytes; a larger read would have to wait for the sync of the one before it.
        self.batch = max(self._limit // BATCH, 1)
        self._unclaimed = 0
        self._written = 0
        self._oldest = 0.0
        self._urgent = False
        lock = threading.Lock()
        self._due = threading.Condition(lock)  # the syncer waits for something to do,
        self._claimed = threading.Condition(lock)  # and those who fetch for what it has done

    def admit(self) -> None:
        """Return when all that was asked for and is not claimed is no more than a chunk for each connection.

        All of that comes again after a kill, what waits in the system's own memory for a connection as well.
        """
        with self._claimed:
            while self._written and not self._pieces.stopped:
                if self._written + self._pieces.flying <= self._most:
                    break
                self._urgent = True
                self._due.notify()
                self._claimed.wait(0.5)

    def reserve(self, count: int) -> None:
        """Return when ``count`` bytes more may be fetched, or the job is over."""
        with self._claimed:
            while self._unclaimed and self._unclaimed + count > self._limit and not self._pieces.stopped:
                self._claimed.wait(0.5)
            self._unclaimed += count

    def wrote(self, reserved: int, count: int) -> None:
        """Of ``reserved`` bytes ``count`` came, and are written."""
        with self._claimed:
            if count < reserved:
                self._unclaimed -= reserved - count
                self._claimed.notify_all()
            if not count:
                return
            if not self._written:
                self._oldest = time.monotonic()
            if not self._written or self._written + count >= self.batch > self._written:
                self._due.notify()
            self._written += count

    def end(self) -> None:
        """Return when the last claim is made, after the job's pieces were stopped."""
        with self._claimed:
            self._due.notify_all()
            self._claimed.notify_all()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        try:
            while not self._pieces.stopped:
                self._wait()
                if not self._pieces.finished:  # else the whole file is synced
                    self._sync()
        except BaseException as failure:  # pylint: disable=broad-exception-caught  # the fetching thread raises it
            self._pieces.fail(failure)
            with contextlib.suppress(OSError):  # what was written before may be kept none the less
                self._sync()
        finally:
            os.close(self._source)

    def _wait(self) -> None:
        """Until there is enough to sync, or the job is over."""
        with self._due:
            while not self._pieces.stopped and self._written < self.batch:
                if self._urgent and self._written:
                    return
                left = self._oldest + SECONDS - time.monotonic()
                if self._written and left <= 0:
                    return
                self._due.wait(min(left, 0.5) if self._written else 0.5)

    def _sync(self) -> None:
        """A sync covers all that was written before it began, so just that is claimed."""
        with self._due:
            count, self._urgent = self._written, False
        written = self._pieces.written()
        os.fdatasync(self._source)
        self._claim(written)
        with self._claimed:
            self._written -= count
            self._unclaimed -= count
            self._oldest = time.monotonic()
            self._claimed.notify_all()
