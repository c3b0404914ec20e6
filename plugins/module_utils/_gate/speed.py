# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a server answers: time to first token and token rate, and whether that is slower than it was.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from . import completions
from .client import WRONG_SHAPE, Client, NotProven, wrong_shape

# How often a server that seems slow is measured: other requests, of those it serves, slow it down for a moment.
TRIES = 3


def measure(client: Client, timeout: float) -> dict[str, float | None]:
    """Seconds to the first token as a client sees it, and the rate in tokens per second, from a warm server.

    The rate is the server's own figure, and where a build has none, that of the pieces.
    """
    body = {
        "messages": [{"role": "user", "content": completions.QUESTION}],
        "max_tokens": completions.TOKENS,
        "temperature": 0,
        # A short answer would say little about the rate, and a cached prompt nothing about the first token.
        "ignore_eos": True,
        "cache_prompt": False,
        "stream_options": {"include_usage": True},
    }
    begin = time.monotonic()
    first = last = None
    pieces = 0
    speed: float | None = None
    for event in client.stream(completions.CHAT, body, timeout):
        try:
            for choice in event["choices"]:
                if any(completions.words(choice["delta"])):
                    last = time.monotonic() - begin
                    first = last if first is None else first
                    pieces += 1
            speed = completions.rate(event.get("timings"), "predicted_per_second") or speed
        except WRONG_SHAPE as error:
            raise wrong_shape("a piece of the answer", event) from error
    if first is None or last is None:
        raise NotProven(
            "the streamed completion ended without a single piece of text, though the server says 200. The model or "
            "its chat template is damaged, or does not fit this build: compare the file's sha256, try a newer image"
        )
    if speed is None and last > first:
        speed = round((pieces - 1) / (last - first), 1)
    return {"time_to_first_token": round(first, 3), "tokens_per_second": speed}


def slower(rate: float | None, last: float | None, allowed: float | None) -> bool:
    """Whether the rate is below the last one by more than ``allowed`` (0.1 is 10 %). Unknown rates are not slower."""
    return bool(allowed is not None and last and rate is not None and rate < last * (1 - allowed))


def best(
    take: Callable[[], Mapping[str, float | None]], last: float | None, allowed: float | None, proven: str | None
) -> dict[str, float | None]:
    """The measurement, of a server that seems too slow the best of TRIES. Raises NotProven where it stays too slow."""
    figures = dict(take())
    tries = 1
    while slower(figures["tokens_per_second"], last, allowed) and tries < TRIES:
        again = dict(take())
        figures = max(figures, again, key=lambda figure: figure["tokens_per_second"] or 0.0)
        tries += 1
    rate = figures["tokens_per_second"]
    if rate is not None and last and allowed is not None and slower(rate, last, allowed):
        raise NotProven(
            f"it makes {rate:g} tokens per second, best of {tries}, and the release of {proven} made {last:g}: that is "
            f"{100 * (1 - rate / last):.0f} % slower, and max_slowdown allows {100 * allowed:g} %. See who else uses "
            "the GPUs and how many layers are on them; if it has to be so, set another max_slowdown"
        )
    return figures
