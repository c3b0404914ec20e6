# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit on the bytes per second of all connections together.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import threading
import time


class Pace:
    """Shared by the threads of a fetch; ``rate`` in bytes per second, None for no limit."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        """Return when ``count`` bytes that were just read fit into the limit; the sender is slowed by a full socket."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self.rate
            pause = self._free_at - now
        time.sleep(pause)
