# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that a ready server is what was asked for and does what it should: every check of the gate, in order.

Private to gpufleet.llamacpp; may change at any time.

/health says that the HTTP threads live. It stays 200 after a CUDA error, on the CPU, and with a corrupt model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import completions, identity, sampling, slots, speed
from .client import Client, NotProven
from .expectation import Expectation
from .options import Gate

__all__ = ["Expectation", "NotProven", "prove"]

# Seconds for an answer that no GPU has a part in.
HTTP_TIMEOUT = 60


def prove(
    url: str,
    key: str | None,
    expected: Expectation | Mapping[str, Any],
    gpu_check: Callable[[], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Prove the server at ``url`` as far as the gate of ``expected`` asks; returns what is recorded of it.

    A bare model (path, size, tensor_bytes, parameters) instead of an Expectation has to answer once.

    ``gpu_check`` gives what is wrong with the use of the GPUs; it is called once the model has worked, when all its
    memory is taken. Raises NotProven in words.
    """
    if not isinstance(expected, Expectation):
        expected = Expectation(model=expected, gate=Gate("completion"))
    client, gate = Client(url, key), expected.gate
    # A build before 2026 shows /v1/models to everybody; a completion nobody gets without the key.
    if key:
        _key_is_asked(url)
    props = client.get("/props", HTTP_TIMEOUT)
    problems = identity.problems(expected, props, client.get("/v1/models", HTTP_TIMEOUT))
    problems += sampling.problems(expected.arguments, props) + slots.problems(expected, props)
    if problems:
        raise NotProven(problems)
    count, context = slots.counts(props)
    done: dict[str, Any] = {"gate": gate.level, "build": props.get("build_info"), "slots": count, "context": context}
    if gate.asks:
        done |= completions.first(client, expected.patience)
    if gate.full:
        # What holds for every prompt is proven before the operator's own prompts take their time.
        done |= _full(client, expected, count, context)
        problems = list(gpu_check()) if gpu_check else []
        if problems:
            raise NotProven(problems)
    if gate.prompts:
        done["prompts"] = completions.asked(client, gate.prompts)
    # 501 is --no-slots; then nobody can see them.
    if gate.full and client.status("GET", "/slots", None, HTTP_TIMEOUT) != 501:
        slots.settled(lambda: client.get("/slots", HTTP_TIMEOUT))
    return done


def _key_is_asked(url: str) -> None:
    """With a key file, a request without a key has to be turned away."""
    body = {"messages": [{"role": "user", "content": completions.QUESTION}], "max_tokens": 1}
    status = Client(url, None).status("POST", completions.CHAT, body, HTTP_TIMEOUT)
    if status != 401:
        raise NotProven(
            f"a request without a key was answered HTTP {status} instead of 401: authentication is off. Look into "
            "api_key_file: a server that finds no key in it serves everybody"
        )


def _full(client: Client, expected: Expectation, count: int, context: int) -> Mapping[str, Any]:
    """What the whole proof adds: every slot at once, a long prompt, and how fast it is."""
    gate, patience = expected.gate, expected.patience
    done: dict[str, Any] = {"at_once": completions.at_once(client, count, patience)}
    tokens = completions.long_prompt_tokens(gate, context, expected.gpus)
    if tokens:
        done |= completions.long_prompt(client, tokens, patience)
    done |= speed.best(
        lambda: speed.measure(client, patience), expected.last_rate, gate.max_slowdown, expected.last_proven
    )
    return done
