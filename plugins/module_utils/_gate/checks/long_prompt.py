# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the server evaluates a long prompt as a whole.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from typing import Any

from ..._result import Problem
from .. import chat
from ..client import WRONG_FORMAT, NotProven, wrong_format
from ..options import RESERVED_TOKENS, Gate
from ..server import Server
from .slots import counts

COMPLETIONS = "/v1/completions"
# The most tokens for an instance without a GPU, where a quarter of the context would take minutes (measured: 140 tokens
# per second with a model of 135 million parameters on 2 cores).
WITHOUT_GPU = 512
# Tokens per second below which a server is too slow to be of use.
SLOWEST = 10
PASSAGE = (
    "A river runs through the old town, past seven stone bridges and a market where people sell bread, silver, paper "
    "and winter coats; in the evening the windows shine yellow, and somebody plays the violin under the clock tower."
)


def check(server: Server) -> dict[str, Any]:
    """Send a prompt of exactly this length; returns the tokens that the server counted, and their rate.

    The prompt is a list of token numbers, so that neither a chat template nor the vocabulary changes its length.
    """
    dummy, context = counts(server.props)
    tokens = length(server.expected.gate, context, server.expected.gpus)
    if not tokens:
        return {}
    timeout = server.expected.reply_timeout
    reply = server.api.post("/tokenize", {"content": PASSAGE}, timeout)
    try:
        passage = [int(token) for token in reply["tokens"]]
        prompt = [passage[number % len(passage)] for number in range(tokens)]
    except (*WRONG_FORMAT, ZeroDivisionError) as error:
        raise wrong_format("/tokenize", reply) from error
    body = {
        "prompt": prompt,
        "max_tokens": chat.FEW_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    reply = server.api.post(COMPLETIONS, body, timeout + tokens / SLOWEST)
    try:
        counted, generated = int(reply["usage"]["prompt_tokens"]), int(reply["usage"]["completion_tokens"])
        rate = chat.rate(reply.get("timings"), "prompt_per_second")
    except WRONG_FORMAT as error:
        raise wrong_format("The completion of a long prompt", reply) from error
    if counted < tokens or generated < 1:
        text = f"the server evaluated {counted} of the {tokens} tokens of a prompt and generated {generated}"
        remedy = "It cuts what its context cannot hold: raise context_size, or lower gate_prompt_tokens."
        raise NotProven(Problem("gate_prompt_tokens", text, remedy))
    return {"prompt_tokens": counted, "prompt_tokens_per_second": rate}


def length(gate: Gate, context: int, gpus: bool) -> int:
    """Tokens of the prompt: what the operator set, or a quarter of a slot's context. 0: no long prompt.

    Raises NotProven if a slot cannot hold it.
    """
    if gate.prompt_tokens is None:
        return context // 4 if gpus else min(context // 4, WITHOUT_GPU)
    most = max(0, context - RESERVED_TOKENS)
    if gate.prompt_tokens > most:
        text = f"{gate.prompt_tokens} tokens do not fit into a slot of this server, which holds {context}"
        raise NotProven(Problem("gate_prompt_tokens", text, f"Choose at most {most}, or raise context_size."))
    return gate.prompt_tokens
