# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the chat API and the texts in its replies, as the checks use them.

Private to gpufleet.llamacpp; may change at any time. HTTP API: llama.cpp tools/server/README.md.
"""

from __future__ import annotations

from typing import Any

CHAT = "/v1/chat/completions"
QUESTION = "What is the capital of France? Answer in one sentence."
TOKENS = 32
# For a reply that only has to be there.
FEW_TOKENS = 8


def request(text: str, tokens: int) -> dict[str, Any]:
    """The body of a request. Without max_tokens llama-server generates until the context is full."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0}


def texts(message: Any) -> tuple[str, str]:
    """The answer in a message, and the reasoning before it, for which a reasoning model uses its first tokens.

    Raises what a value of another format raises (WRONG_FORMAT).
    """
    answer, reasoning = message.get("content") or "", message.get("reasoning_content") or ""
    return str(answer + ""), str(reasoning + "")


def rate(timings: Any, key: str) -> float | None:
    """A rate in tokens per second as the server measured it; None if this build does not report it."""
    value = (timings or {}).get(key)
    return round(float(value), 1) if value else None
