# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model is asked, and whether what comes back is an answer: one, many at once, a long one, the operator's own.

Private to gpufleet.llamacpp; may change at any time. HTTP API: llama.cpp tools/server/README.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .client import WRONG_SHAPE, Client, NotInTime, NotProven, wrong_shape
from .options import ROOM, Gate, Prompt

CHAT = "/v1/chat/completions"
PLAIN = "/v1/completions"
QUESTION = "What is the capital of France? Answer in one sentence."
TOKENS = 32
# Each of many at once, and behind a long prompt.
FEW_TOKENS = 8
# A model that thinks first needs room for it; what ends an answer that is too long is the prompt's own timeout.
PROMPT_TOKENS = 1024
# The long prompt of an instance without a GPU: a CPU evaluates it so slowly that a quarter of a context would take
# minutes (measured: a model of 135 million parameters on 2 cores, 140 tokens per second).
CPU_PROMPT = 512
# Tokens per second that a long prompt is evaluated with at least.
PROMPT_RATE = 10
PASSAGE = (
    "A river runs through the old town, past seven stone bridges and a market where people sell bread, silver, paper "
    "and winter coats; in the evening the windows shine yellow, and somebody plays the violin under the clock tower."
)


def _chat(text: str, tokens: int) -> dict[str, Any]:
    # Without max_tokens llama-server generates until the context is full.
    return {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0}


def words(message: Any) -> tuple[str, str]:
    """What a message says, and what was thought before: a reasoning model spends its first tokens on that, which come
    in a field of their own. Raises what a wrong shape raises.
    """
    said, thought = message.get("content") or "", message.get("reasoning_content") or ""
    return str(said + ""), str(thought + "")


def rate(timings: Any, key: str) -> float | None:
    """A rate in tokens per second as the server measured it; None where this build does not tell."""
    value = (timings or {}).get(key)
    return round(float(value), 1) if value else None


def first(client: Client, timeout: float) -> dict[str, Any]:
    """A first real answer through the chat API, with its token rate."""
    begin = time.monotonic()
    answer = client.post(CHAT, _chat(QUESTION, TOKENS), timeout)
    seconds = time.monotonic() - begin
    try:
        text = "".join(words(answer["choices"][0]["message"]))
        tokens = int(answer["usage"]["completion_tokens"])
        shown = rate(answer.get("timings"), "predicted_per_second")
    except WRONG_SHAPE as error:
        raise wrong_shape("the completion", answer) from error
    if not text.strip() or tokens < 1:
        raise NotProven(
            f"the completion is empty ({tokens} tokens), though the server says 200. The model or its chat template "
            "is damaged, or does not fit this build: compare the file's sha256, try a newer image"
        )
    return {
        "question": QUESTION,
        "answer": text.strip(),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": shown,
    }


def at_once(client: Client, count: int, timeout: float) -> int:
    """As many completions at once as there are slots; returns how many. Raises NotProven if one is not answered."""

    def ask(number: int) -> str | None:
        body = {**_chat(f"Write the number {number + 1} as a word.", FEW_TOKENS), "ignore_eos": True}
        try:
            answer = client.post(CHAT, body, timeout)
            try:
                words(answer["choices"][0]["message"])
                tokens = int(answer["usage"]["completion_tokens"])
            except WRONG_SHAPE as error:
                raise wrong_shape("the completion", answer) from error
            return None if tokens else "it is empty, though the server says 200"
        except NotProven as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=max(1, count)) as pool:
        failed = [problem for problem in pool.map(ask, range(count)) if problem]
    if failed:
        raise NotProven(
            f"of {count} completions at once, one for each slot, {len(failed)} failed. The first of them: {failed[0]}"
        )
    return count


def long_prompt_tokens(gate: Gate, context: int, gpus: bool) -> int:
    """Tokens of the long prompt: the operator's, or a quarter of a slot's context; without a GPU at most CPU_PROMPT.

    Raises NotProven where a slot cannot hold it.
    """
    if gate.prompt_tokens is None:
        tokens = context // 4
        return tokens if gpus else min(tokens, CPU_PROMPT)
    if gate.prompt_tokens and gate.prompt_tokens > context - ROOM:
        raise NotProven(
            f"gate_prompt_tokens is {gate.prompt_tokens}, and a slot of this server holds {context} tokens. Choose at "
            f"most {max(0, context - ROOM)}, or give it more context"
        )
    return gate.prompt_tokens


def long_prompt(client: Client, tokens: int, patience: float) -> dict[str, Any]:
    """A prompt of exactly this length, evaluated as a whole; returns how many tokens the server counted, and its rate.

    It is sent as tokens of the model's own, so neither a chat template nor the vocabulary changes the length.
    """
    some = client.post("/tokenize", {"content": PASSAGE}, patience)
    try:
        passage = [int(token) for token in some["tokens"]]
        prompt = [passage[number % len(passage)] for number in range(tokens)]
    except (*WRONG_SHAPE, ZeroDivisionError) as error:
        raise wrong_shape("/tokenize", some) from error
    body = {
        "prompt": prompt,
        "max_tokens": FEW_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    answer = client.post(PLAIN, body, patience + tokens / PROMPT_RATE)
    try:
        counted, made = int(answer["usage"]["prompt_tokens"]), int(answer["usage"]["completion_tokens"])
        speed = rate(answer.get("timings"), "prompt_per_second")
    except WRONG_SHAPE as error:
        raise wrong_shape("the completion of a long prompt", answer) from error
    if counted < tokens or made < 1:
        raise NotProven(
            f"of a prompt of {tokens} tokens the server took {counted} and answered with {made} tokens, expected are "
            "all of them and an answer. It cuts what it cannot hold: give it more context, or a smaller "
            "gate_prompt_tokens"
        )
    return {"prompt_tokens": counted, "prompt_tokens_per_second": speed}


def asked(client: Client, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """The operator's own prompts, each with its answer; raises NotProven with every one that was not answered well."""
    answers, failed = [], []
    for prompt in prompts:
        begin = time.monotonic()
        try:
            text = _answer(client, prompt)
        except NotProven as error:
            failed.append(f"gate_prompts: {prompt.prompt!r}: {error}")
            continue
        answers.append({"prompt": prompt.prompt, "answer": text[:300], "seconds": round(time.monotonic() - begin, 3)})
    if failed:
        raise NotProven(failed)
    return answers


def _answer(client: Client, prompt: Prompt) -> str:
    """The answer to one prompt, without its thoughts. It comes in pieces, so that the limit holds for the whole."""
    said: list[str] = []
    thought: list[str] = []
    try:
        for event in client.stream(CHAT, _chat(prompt.prompt, PROMPT_TOKENS), prompt.timeout):
            _add(said, thought, event)
    except NotInTime as error:
        so_far = "".join(said).strip()[:300]
        raise NotProven(
            f"the answer was not complete within its timeout of {prompt.timeout} s, so far it is {so_far!r}. Ask "
            "for something shorter, or give it more time"
        ) from error
    text = "".join(said).strip()
    if re.search(prompt.pattern, text):
        return text
    if not text and "".join(thought).strip():
        raise NotProven(
            f"the model was still thinking after {PROMPT_TOKENS} tokens and has said nothing. Ask something simpler, "
            "or switch the thinking off (--reasoning off in args)"
        )
    raise NotProven(
        f"the answer does not match {prompt.pattern!r}, it is {text[:300]!r}. If it is a good answer, mend the "
        "pattern; if not, this is not the model, the quantization or the template that you want"
    )


def _add(said: list[str], thought: list[str], event: Any) -> None:
    try:
        for choice in event["choices"]:
            piece = words(choice["delta"])
            said.append(piece[0])
            thought.append(piece[1])
    except WRONG_SHAPE as error:
        raise wrong_shape("a piece of the answer", event) from error
