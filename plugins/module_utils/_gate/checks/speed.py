# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the server is not much slower than the last release (max_slowdown).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..._result import Problem
from .. import chat
from ..client import WRONG_FORMAT, ApiClient, NotProven, wrong_format
from ..server import Server
from .completion import DAMAGED

# Measurements of a server that seems too slow: other clients slow it down for a moment.
TRIES = 3


def check(server: Server) -> dict[str, Any]:
    """Measure time to first token and token rate, and compare the rate with the last release; returns both."""
    expected = server.expected
    return best(
        lambda: measure(server.api, expected.reply_timeout),
        expected.last_rate,
        expected.gate.max_slowdown,
        expected.last_proven,
    )


def measure(api: ApiClient, timeout: float) -> dict[str, float | None]:
    """Seconds until a client sees the first token, and tokens per second.

    The rate is the one that the server reports, or that of the events of a build that reports none.
    """
    body = {
        **chat.request(chat.QUESTION, chat.TOKENS),
        # A short answer would show little about the rate, and a cached prompt nothing about the first token.
        "ignore_eos": True,
        "cache_prompt": False,
        "stream_options": {"include_usage": True},
    }
    begin = time.monotonic()
    first = last = None
    events = 0
    rate: float | None = None
    for event in api.stream(chat.CHAT, body, timeout):
        try:
            for choice in event["choices"]:
                if any(chat.texts(choice["delta"])):
                    last = time.monotonic() - begin
                    first = last if first is None else first
                    events += 1
            rate = chat.rate(event.get("timings"), "predicted_per_second") or rate
        except WRONG_FORMAT as error:
            raise wrong_format("An event of the answer", event) from error
    if first is None or last is None:
        raise NotProven(Problem("", "The streamed completion has no text, with HTTP status 200", DAMAGED))
    if rate is None and last > first:
        rate = round((events - 1) / (last - first), 1)
    return {"time_to_first_token": round(first, 3), "tokens_per_second": rate}


def slower(rate: float | None, last: float | None, allowed: float | None) -> bool:
    """Whether the rate is below the last one by more than ``allowed`` (0.1 is 10 %). An unknown rate is not slower."""
    return bool(allowed is not None and last and rate is not None and rate < last * (1 - allowed))


def best(
    take: Callable[[], Mapping[str, float | None]], last: float | None, allowed: float | None, proven: str | None
) -> dict[str, float | None]:
    """The first measurement that is not too slow. Raises NotProven if none of TRIES is."""
    figures = dict(take())
    tries = 1
    while slower(figures["tokens_per_second"], last, allowed) and tries < TRIES:
        again = dict(take())
        figures = max(figures, again, key=lambda figure: figure["tokens_per_second"] or 0.0)
        tries += 1
    rate = figures["tokens_per_second"]
    if rate is not None and last and allowed is not None and slower(rate, last, allowed):
        raise NotProven(
            Problem(
                "max_slowdown",
                f"the server generates {rate:g} tokens per second (best of {tries}), {100 * (1 - rate / last):.0f} % "
                f"less than the {last:g} of the release of {proven}; {100 * allowed:g} % are allowed",
                "Check which programs use the GPUs, and how many layers are on them. If the new rate is acceptable, "
                "raise max_slowdown.",
            )
        )
    return figures
