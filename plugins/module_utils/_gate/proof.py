# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that a ready server works: all checks of the gate, in their order.

Private to gpufleet.llamacpp; may change at any time.

/health shows only that the HTTP threads are alive: it stays 200 after a CUDA error, on the CPU, and with a corrupt
model.

To add a check, write ``check(server)`` in a file of checks/, and add a line to CHECKS. It returns what to record
(usually nothing), and raises NotProven with what was found, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._result import Problem
from .checks import (
    api_key,
    completion,
    gpu_proof,
    identity,
    idle,
    long_prompt,
    parallel,
    prompts,
    sampling,
    slots,
    speed,
)
from .client import HTTP_TIMEOUT, ApiClient, NotProven
from .expectation import Expectation
from .server import Server

# The value of ``gate`` from which on a check is part of the proof, and the check.
CHECKS: tuple[tuple[str, Callable[[Server], dict[str, Any]]], ...] = (
    # What the server reports is compared, and all problems are reported together.
    ("health", identity.check),
    ("health", sampling.check),
    ("health", slots.check),
    ("health", api_key.check),
    # The model has to work, and the first problem ends the proof.
    ("completion", completion.check),
    ("full", parallel.check),
    ("full", long_prompt.check),
    ("full", speed.check),
    ("full", gpu_proof.check),
    ("completion", prompts.check),
    ("full", idle.check),
)


def run(
    url: str, key: str | None, expected: Expectation, gpu_problems: Callable[[], Sequence[Problem]] = lambda: ()
) -> dict[str, Any]:
    """Run the checks on the server at ``url`` that the gate of ``expected`` asks for; returns what is recorded.

    ``gpu_problems``: see Server. Raises NotProven.
    """
    api, gate = ApiClient(url, key), expected.gate
    props, models = api.get("/props", HTTP_TIMEOUT), api.get("/v1/models", HTTP_TIMEOUT)
    server = Server(api, expected, props, models, gpu_problems)
    recorded: dict[str, Any] = {"gate": gate.level}
    problems: list[Problem] = []
    for level, check in CHECKS:
        if problems and level != "health":
            break
        if gate.includes(level):
            try:
                recorded |= check(server)
            except NotProven as error:
                problems += error.problems
    if problems:
        raise NotProven(*dict.fromkeys(problems))
    return recorded
