# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that a ready server serves the model that was asked for: its identity, and a first completion.

Private to gpufleet.llamacpp; may change at any time. HTTP API: llama.cpp tools/server/README.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

try:
    import requests
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]

# Seconds for one answer: a large model on a cold cache evaluates its first batch slowly.
TIMEOUT = 300
QUESTION = "What is the capital of France? Answer in one sentence."
TOKENS = 32
# What Python says when a JSON value has another shape than is expected.
WRONG_SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class NotProven(Exception):
    """The server is up and does not do what it should; the message says what was found and what was expected."""


def _session(key: str | None) -> requests.Session:
    session = requests.Session()
    # The server is on this host: a site's proxy must not get the request.
    session.trust_env = False
    if key:
        session.headers["Authorization"] = f"Bearer {key}"
    return session


def _json(answer: requests.Response, what: str) -> Any:
    if answer.status_code != 200:
        raise NotProven(f"{what} answered HTTP {answer.status_code} instead of 200: {answer.text[:300].strip()}")
    try:
        return answer.json()
    except ValueError as error:
        raise NotProven(f"{what} did not answer JSON: {answer.text[:300].strip()}") from error


def identity(session: requests.Session, url: str, model: Mapping[str, Any]) -> None:
    """The server's own count of bytes and parameters has to be the GGUF's, so it has loaded this file and no other."""
    body = _json(session.get(f"{url}/v1/models", timeout=TIMEOUT), "/v1/models")
    try:
        meta = body["data"][0]["meta"]
        served = {"tensor_bytes": meta["size"], "parameters": meta["n_params"]}
    except WRONG_SHAPE as error:
        raise NotProven(f"/v1/models has not the shape that llama-server gives: {str(body)[:300]}") from error
    for name, value in served.items():
        if model.get(name) and model[name] != value:
            raise NotProven(
                f"the server holds another model: its {name} is {value}, that of {model['path']} is {model[name]}"
            )


def completion(session: requests.Session, url: str) -> dict[str, Any]:
    """A first real answer through the chat API, with its token rate (tokens per second as the server measured it)."""
    begin = time.monotonic()
    # Without max_tokens llama-server generates until the context is full.
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": TOKENS, "temperature": 0}
    answer = _json(session.post(f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT), "/v1/chat/completions")
    seconds = time.monotonic() - begin
    try:
        message = answer["choices"][0]["message"]
        # A reasoning model spends its first tokens on thoughts, which come in a field of their own.
        text = str((message.get("content") or "") + (message.get("reasoning_content") or ""))
        tokens = int(answer["usage"]["completion_tokens"])
        rate = (answer.get("timings") or {}).get("predicted_per_second")
        shown = round(float(rate), 1) if rate else None
    except WRONG_SHAPE as error:
        raise NotProven(f"the completion has not the shape of an answer: {str(answer)[:300]}") from error
    if not text.strip() or tokens < 1:
        raise NotProven(f"the completion is empty ({tokens} tokens), though the server says 200")
    return {
        "question": QUESTION,
        "answer": text.strip(),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": shown,
    }


def key_is_asked(url: str) -> None:
    """With a key file, a request without a key has to be turned away."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
    status = _session(None).post(f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT).status_code
    if status != 401:
        raise NotProven(f"a request without a key was answered HTTP {status} instead of 401: authentication is off")


def prove(url: str, key: str | None, model: Mapping[str, Any]) -> dict[str, Any]:
    """The whole proof; returns the completion. Raises NotProven in words."""
    session = _session(key)
    try:
        identity(session, url, model)
        if key:
            key_is_asked(url)
        return completion(session, url)
    except requests.RequestException as error:
        raise NotProven(f"the server at {url} did not answer: {error}") from error
