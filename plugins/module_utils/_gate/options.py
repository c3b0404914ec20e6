# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's options: how much is proven, checked and in canonical form. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .._result import Problem
from .._spec.options import BY_NAME

# Values of ``gate``; each includes those before it.
LEVELS = BY_NAME["gate"].choices
# Seconds for the answer to one of gate_prompts.
LONGEST_TIMEOUT = 3600
PERCENT = re.compile(r"(\d{1,2}(?:\.\d+)?) ?%")
# Tokens of the context that the chat template and the answer need beside a long prompt.
RESERVED_TOKENS = 64


@dataclass(frozen=True)
class Prompt:
    """One of gate_prompts: the answer has to match ``pattern`` within ``timeout`` seconds."""

    prompt: str
    pattern: str
    timeout: int


@dataclass(frozen=True)
class Gate:
    """What is proven. prompt_tokens None: a part of the context. max_slowdown: 0.1 is 10 %."""

    level: str = "full"
    prompts: tuple[Prompt, ...] = ()
    prompt_tokens: int | None = None
    max_slowdown: float | None = None

    def includes(self, level: str) -> bool:
        """Whether the checks of this level are part of the proof."""
        return LEVELS.index(level) <= LEVELS.index(self.level)

    def as_dict(self) -> dict[str, Any]:
        """The form that is recorded on the host: JSON types only."""
        return {**asdict(self), "prompts": [asdict(prompt) for prompt in self.prompts]}

    def for_rollback(self) -> Gate:
        """The gate for the last release, which passed once: it only has to answer."""
        return Gate(level=min(self.level, "completion", key=LEVELS.index))


def check(params: Mapping[str, Any]) -> list[Problem]:
    """Every problem of the gate's options."""
    level, tokens, slowdown = params["gate"], params["gate_prompt_tokens"], params["max_slowdown"]
    prompts = params["gate_prompts"] or []
    problems = [problem for number, entry in enumerate(prompts, start=1) for problem in _check_prompt(number, entry)]
    if prompts and level == "health":
        text = "gate=health sends no prompts to the model"
        problems.append(Problem("gate_prompts", text, "Choose gate=completion or gate=full, or remove gate_prompts."))
    if tokens is not None:
        problems += _check_tokens(tokens, params["context_size"])
    if slowdown is not None:
        problems += _check_slowdown(level, slowdown)
    return problems


def _check_prompt(number: int, entry: Mapping[str, Any]) -> list[Problem]:
    found = []
    if not entry["prompt"].strip():
        found.append(("the prompt is empty", "Write a question whose answer you know."))
    if not entry["pattern"]:
        found.append(("the pattern is empty, so every answer matches it", "Write what a good answer contains."))
    try:
        re.compile(entry["pattern"])
    except re.error as error:
        text = f"the pattern {entry['pattern']!r} is not a Python regular expression: {error}"
        found.append((text, "Correct it. A backslash before a special character makes it literal."))
    if not 1 <= entry["timeout"] <= LONGEST_TIMEOUT:
        found.append((f"the timeout {entry['timeout']} is out of range", f"Choose 1 to {LONGEST_TIMEOUT} seconds."))
    return [Problem("gate_prompts", f"entry {number}: {text}", remedy) for text, remedy in found]


def _check_tokens(tokens: int, context: int | None) -> list[Problem]:
    if tokens < 0:
        remedy = "Choose a number of tokens, or 0 for no long prompt."
        return [Problem("gate_prompt_tokens", f"{tokens} is out of range", remedy)]
    if context and tokens > context - RESERVED_TOKENS:
        text = f"{tokens} tokens and an answer do not fit into context_size {context}"
        return [Problem("gate_prompt_tokens", text, f"Choose at most {max(0, context - RESERVED_TOKENS)}.")]
    return []


def _check_slowdown(level: str, slowdown: str) -> list[Problem]:
    match = PERCENT.fullmatch(slowdown.strip())
    if match is None or float(match[1]) < 1:
        remedy = "Choose 1% to 99%, such as 10%. Two runs of the same server can differ by 1%."
        return [Problem("max_slowdown", f"{slowdown!r} is not a percentage from 1% to 99%", remedy)]
    if level != "full":
        text = f"gate={level} does not measure the token rate"
        return [Problem("max_slowdown", text, "Choose gate=full, or remove max_slowdown.")]
    return []


def parse(params: Mapping[str, Any]) -> Gate:
    """The gate of options in which ``check`` finds no problem."""
    match = PERCENT.fullmatch((params["max_slowdown"] or "").strip())
    return Gate(
        level=params["gate"],
        prompts=tuple(
            Prompt(entry["prompt"], entry["pattern"], entry["timeout"]) for entry in params["gate_prompts"] or []
        ),
        prompt_tokens=params["gate_prompt_tokens"],
        max_slowdown=float(match[1]) / 100 if match else None,
    )


def from_dict(value: Mapping[str, Any] | None) -> Gate:
    """The recorded gate; the full gate for a record without one, or with one of another version."""
    try:
        known = dict(value or {})
        gate = Gate(**{**known, "prompts": tuple(Prompt(**prompt) for prompt in known.get("prompts") or ())})
    except TypeError:
        return Gate()
    return gate if gate.level in LEVELS else Gate()
