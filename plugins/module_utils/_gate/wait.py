# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a started server is ready, or has ended.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Seconds for container, backend and warm-up, beside reading the model.
START_SECONDS = 120
# Bytes per second that even a cold disk or a network file system delivers.
READ_RATE = 64 << 20
# Seconds between two polls.
INTERVAL = 0.2
# What the last reply of /health means when the time is up.
STILL = {
    None: "nothing answers",
    200: "another program answers there, because the instance's runner has not seen its server ready",
    503: "the model is still loading (503)",
}
# While the runner writes nothing, the manager is asked in every 15th poll; asking it may start a program.
ASK_EVERY = 15


@dataclass(frozen=True)
class Outcome:
    """Whether the server is ready, and if not, why (without a final period). exit_status: of a server that ended."""

    ready: bool
    seconds: float
    reason: str = ""
    exit_status: int | None = None


def default_timeout(model_bytes: int | None) -> int:
    """Seconds that a start may take: 18 GB give 6 min, 193 GB 48 min."""
    return START_SECONDS + (model_bytes or 0) // READ_RATE


def until_ready(
    account: Callable[[], Mapping[str, Any]],
    health: Callable[[], int | None],
    given_up: Callable[[], str | None],
    launch: str,
    timeout: float,
    before: Mapping[str, Any],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Wait for the status 200 of /health from this launch. A server that ended ends the wait at once.

    ``account`` reads the runner's state file (running.json); ``before`` is its content before the start. ``health``
    returns the HTTP status, or None without a reply; 503 means that the model is loading. ``given_up`` returns the
    unit's state if the manager does not start it again, else None.
    """
    begin = clock()
    runner: tuple[Any, ...] | None = None
    polls = 0
    while True:
        now = account()
        seconds = clock() - begin
        if now.get("launch") == launch and _run(now) != _run(before):
            runner = runner or _run(now)
            ended = now.get("exit")
            if ended or _run(now) != runner:
                # If the manager has restarted the server already, the file no longer has the first exit status.
                status = ended.get("status") if ended else None
                how = f"with exit status {status}" if ended else "and its manager has started it again"
                return Outcome(False, seconds, f"llama-server ended {seconds:.1f} s after its start {how}", status)
            if now.get("ready") and health() == 200:
                return Outcome(True, seconds)
        elif polls % ASK_EVERY == ASK_EVERY - 1 and (state := given_up()) is not None:
            # The runner failed before it could write its state file.
            return Outcome(False, seconds, f"The manager does not start the server again: {state}")
        if seconds > timeout:
            last = health()
            still = STILL.get(last, f"HTTP {last}")
            return Outcome(False, seconds, f"/health did not return 200 within {timeout:.0f} s: {still}")
        polls += 1
        sleep(INTERVAL)


def _run(account: Mapping[str, Any]) -> tuple[Any, ...]:
    """What identifies one run of a runner."""
    return account.get("boot"), account.get("runner_pid"), account.get("runner_start")
