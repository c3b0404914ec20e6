# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the model answers a question through the chat API.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from typing import Any

from ..._result import Problem
from .. import chat
from ..client import WRONG_FORMAT, NotProven, wrong_format
from ..server import Server

DAMAGED = (
    "The model or its chat template is damaged, or is not compatible with this build: compare the file's sha256, and "
    "try a newer image."
)


def check(server: Server) -> dict[str, Any]:
    """Ask once; returns question, answer and token rate."""
    begin = time.monotonic()
    reply = server.api.post(chat.CHAT, chat.request(chat.QUESTION, chat.TOKENS), server.expected.reply_timeout)
    seconds = time.monotonic() - begin
    try:
        answer = "".join(chat.texts(reply["choices"][0]["message"])).strip()
        tokens = int(reply["usage"]["completion_tokens"])
        rate = chat.rate(reply.get("timings"), "predicted_per_second")
    except WRONG_FORMAT as error:
        raise wrong_format("The completion", reply) from error
    if not answer or tokens < 1:
        raise NotProven(Problem("", f"The completion is empty ({tokens} tokens), with HTTP status 200", DAMAGED))
    return {
        "question": chat.QUESTION,
        "answer": answer,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": rate,
    }
