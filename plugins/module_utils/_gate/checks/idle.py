# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: no slot is stuck.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..._result import Problem
from ..client import HTTP_TIMEOUT, NotProven, wrong_format
from ..server import Server

# Seconds in which a busy slot has to make progress. A batch of a long prompt shows none until it is done.
STUCK = 60.0
INTERVAL = 0.5
# The status of /slots with --no-slots.
NOT_SUPPORTED = 501


def check(server: Server) -> dict[str, Any]:
    """Wait until no slot is stuck. With --no-slots nobody can see them."""
    if server.api.status("GET", "/slots", None, HTTP_TIMEOUT) != NOT_SUPPORTED:
        wait(lambda: server.api.get("/slots", HTTP_TIMEOUT))
    return {}


def wait(
    read: Callable[[], Any],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until each slot that is busy now was idle or made progress: it may be busy for another client.

    ``read`` returns the value of /slots. Raises NotProven for a stuck slot.
    """
    end = clock() + STUCK
    waiting = busy(read())
    while waiting:
        if clock() > end:
            stuck = ", ".join(str(slot) for slot in sorted(waiting, key=str))
            text = f"Slot {stuck} has been busy for {STUCK:.0f} s without progress, after all requests were answered"
            raise NotProven(
                Problem("", text, "The GPU or the server hangs: check nvidia-smi and the kernel log for Xid.")
            )
        sleep(INTERVAL)
        now = busy(read())
        waiting = {slot: progress for slot, progress in waiting.items() if now.get(slot) == progress}


def busy(slots: Any) -> dict[Any, tuple[Any, ...]]:
    """The progress of every busy slot by its number: it differs from one moment to another unless the slot is stuck."""
    if not isinstance(slots, list):
        raise wrong_format("/slots", slots)
    found = {}
    for slot in slots:
        if not isinstance(slot, Mapping):
            raise wrong_format("/slots", slots)
        if slot.get("is_processing"):
            token = slot.get("next_token")
            first = token[0] if isinstance(token, list) and token else token
            decoded = first.get("n_decoded") if isinstance(first, Mapping) else None
            found[slot.get("id")] = (slot.get("id_task"), slot.get("n_prompt_tokens_processed"), decoded)
    return found
