# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thread that syncs what was written and records it in the journal, and that limits what a kill can lose.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable

from .pieces import Pieces

# A kill loses what is not recorded yet: at most this much for each connection (row ``kill``). So a disk that is slower
# than the line slows the line down.
UNRECORDED = 3 << 20
# A sync starts when this fraction of the limit is written, or when the oldest byte is this old (seconds).
BATCHES = 4
AGE_MAX = 1.0


class Syncer(threading.Thread):
    """Syncs and records until the pieces are stopped. Its failure ends the fetch.

    A worker calls ``wait_to_request`` before a request, ``wait_to_read`` before a read, and ``wrote`` after it.
    """

    def __init__(
        self,
        handle: int,
        pieces: Pieces,
        record: Callable[[Iterable[tuple[int, int]]], None],
        chunk: int,
        connections: int,
    ) -> None:
        super().__init__(name="sync", daemon=True)
        self._descriptor = os.dup(handle)
        self._pieces = pieces
        self._record = record
        self._requests_limit = connections * chunk
        self._limit = min(self._requests_limit, max(chunk, connections * UNRECORDED))
        # The largest read (bytes): a larger one would have to wait for the sync of the one before it.
        self.batch = max(self._limit // BATCHES, 1)
        self._unrecorded = 0  # bytes that are written or being read
        self._written = 0
        self._oldest = 0.0
        self._urgent = False
        lock = threading.Lock()
        self._due = threading.Condition(lock)  # the syncer waits for something to do
        self._recorded = threading.Condition(lock)  # the workers wait for the syncer

    def wait_to_request(self) -> None:
        """Return when what is requested or unrecorded is at most a chunk for each connection.

        After a kill all of it is sent again, also what was still in the socket buffers.
        """
        with self._recorded:
            while self._written and not self._pieces.stopped:
                if self._written + self._pieces.requested <= self._requests_limit:
                    break
                self._urgent = True
                self._due.notify()
                self._recorded.wait(0.5)

    def wait_to_read(self, count: int) -> None:
        """Return when ``count`` more bytes may be read, or the fetch is over."""
        with self._recorded:
            while self._unrecorded and self._unrecorded + count > self._limit and not self._pieces.stopped:
                self._recorded.wait(0.5)
            self._unrecorded += count

    def wrote(self, announced: int, count: int) -> None:
        """Of the ``announced`` bytes ``count`` were read and written."""
        with self._recorded:
            if count < announced:
                self._unrecorded -= announced - count
                self._recorded.notify_all()
            if not count:
                return
            if not self._written:
                self._oldest = time.monotonic()
            if not self._written or self._written + count >= self.batch > self._written:
                self._due.notify()
            self._written += count

    def end(self) -> None:
        """Return after the last record. The pieces are stopped already."""
        with self._recorded:
            self._due.notify_all()
            self._recorded.notify_all()
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
            with contextlib.suppress(OSError):  # what was written before may still be kept
                self._sync()
        finally:
            os.close(self._descriptor)

    def _wait(self) -> None:
        """Return when there is enough to sync, or the fetch is over."""
        with self._due:
            while not self._pieces.stopped and self._written < self.batch:
                if self._urgent and self._written:
                    return
                left = self._oldest + AGE_MAX - time.monotonic()
                if self._written and left <= 0:
                    return
                self._due.wait(min(left, 0.5) if self._written else 0.5)

    def _sync(self) -> None:
        """A sync covers what was written before it started, and only that is recorded."""
        with self._due:
            count, self._urgent = self._written, False
        written = self._pieces.written()
        os.fdatasync(self._descriptor)
        self._record(written)
        with self._recorded:
            self._written -= count
            self._unrecorded -= count
            self._oldest = time.monotonic()
            self._recorded.notify_all()
