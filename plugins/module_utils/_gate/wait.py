# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting until a started server is ready, and no longer than it lives.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Seconds a start may take beside the reading of the model: container, backend, warm-up.
START_SECONDS = 120
# Bytes per second that a cold disk or a network file system gives at least; the measured platform gives far more.
READ_RATE = 64 << 20
# Seconds between two looks.
EVERY = 0.2
# What the last answer means where the time is up.
STILL = {
    None: "nothing answers",
    200: "what answers there is not this instance, whose runner has not seen it ready",
    503: "it is still loading the model (503)",
}
# Every how many looks the manager is asked about a runner that says nothing; asking may start a whole program.
ASK_EVERY = 15


@dataclass(frozen=True)
class Outcome:
    """ready, or the reason why not; exit_status where the server ended by itself."""

    ready: bool
    seconds: float
    reason: str = ""
    exit_status: int | None = None


def default_timeout(model_bytes: int | None) -> int:
    """Seconds that a start may take: more for a larger model. 18 GB give 6 min, 193 GB 48 min."""
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
    """Wait for 200 from /health of this very launch; a server that ended ends the waiting at once.

    ``account`` gives what the runner wrote last (running.json), which as long as it is ``before`` is of another run;
    ``health`` the HTTP status or None; ``given_up`` in what state the manager has given the unit up, or None. 503 is
    "loading the model", which llama-server says from its first second, and not success.
    """
    begin = clock()
    runner: tuple[Any, ...] | None = None
    looks = 0
    while True:
        now = account()
        seconds = clock() - begin
        if now.get("launch") == launch and _run(now) != _run(before):
            runner = runner or _run(now)
            ended = now.get("exit")
            if ended or _run(now) != runner:
                # Where the manager was quicker than we and has started it again, the first end is gone from the file.
                status = ended.get("status") if ended else None
                said = f"exit status {status}" if ended else "and its manager has started it again"
                return Outcome(False, seconds, f"llama-server ended {seconds:.1f} s after its start, {said}", status)
            if now.get("ready") and health() == 200:
                return Outcome(True, seconds)
        elif looks % ASK_EVERY == ASK_EVERY - 1 and (state := given_up()) is not None:
            # The runner itself did not come as far as writing its account.
            return Outcome(False, seconds, f"its manager has given it up: {state}")
        if seconds > timeout:
            last = health()
            doing = STILL.get(last, f"HTTP {last}")
            return Outcome(False, seconds, f"/health did not answer 200 within {timeout:.0f} s: {doing}")
        looks += 1
        sleep(EVERY)


def _run(account: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run of a runner from every other."""
    return account.get("boot"), account.get("runner_pid"), account.get("runner_start")
