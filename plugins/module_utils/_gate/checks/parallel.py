# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: all slots answer at the same time.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..._result import Problem
from .. import chat
from ..client import WRONG_FORMAT, NotProven, wrong_format
from ..server import Server
from .slots import counts


def check(server: Server) -> dict[str, Any]:
    """Send one request for each slot, all at once; returns their number."""
    count, dummy = counts(server.props)

    def ask(number: int) -> Problem | None:
        try:
            _ask(server, number)
        except NotProven as error:
            return error.problems[0]
        return None

    with ThreadPoolExecutor(max_workers=max(1, count)) as pool:
        failed = [problem for problem in pool.map(ask, range(count)) if problem]
    if failed:
        text = f"{len(failed)} of {count} parallel completions (one per slot) failed; the first: {failed[0].text}"
        raise NotProven(Problem("", text, failed[0].remedy))
    return {"at_once": count}


def _ask(server: Server, number: int) -> None:
    """One completion, of a prompt of its own. White space is an answer: this is a check of the slots."""
    body = {**chat.request(f"Write the number {number + 1} as a word.", chat.FEW_TOKENS), "ignore_eos": True}
    reply = server.api.post(chat.CHAT, body, server.expected.reply_timeout)
    try:
        chat.texts(reply["choices"][0]["message"])
        tokens = int(reply["usage"]["completion_tokens"])
    except WRONG_FORMAT as error:
        raise wrong_format("The completion", reply) from error
    if tokens < 1:
        raise NotProven(Problem("", "The completion has no tokens"))
