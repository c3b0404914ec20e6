# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much is to be proven: the gate's options as the operator gives them, checked and in canonical form. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Each asks for what those before it ask for, and more.
LEVELS = ("health", "completion", "full")
# Seconds for the answer to a prompt of the operator's.
PROMPT_TIMEOUT = 60
PERCENT = re.compile(r"(\d{1,2}(?:\.\d+)?) ?%")
# Tokens that the template and the first words of an answer need beside the long prompt.
ROOM = 64


@dataclass(frozen=True)
class Prompt:
    """A question of the operator's; the answer has to match ``pattern`` within ``timeout`` seconds."""

    prompt: str
    pattern: str
    timeout: int = PROMPT_TIMEOUT


@dataclass(frozen=True)
class Gate:
    """What is to be proven. prompt_tokens None: chosen by the context; max_slowdown: 0.1 is 10 %."""

    level: str = "full"
    prompts: tuple[Prompt, ...] = ()
    prompt_tokens: int | None = None
    max_slowdown: float | None = None

    @property
    def asks(self) -> bool:
        """Whether the model is asked anything."""
        return self.level != "health"

    @property
    def full(self) -> bool:
        """Whether everything is proven."""
        return self.level == "full"

    def as_dict(self) -> dict[str, Any]:
        """The form that is recorded on the host: JSON types only."""
        return {**asdict(self), "prompts": [asdict(prompt) for prompt in self.prompts]}

    def for_the_way_back(self) -> Gate:
        """The gate for the last release: it passed once, so it only has to answer; the prompts are for the new one."""
        return Gate(level="completion" if self.asks else self.level)


def check(params: Mapping[str, Any]) -> list[str]:
    """Every problem of the gate's options, in words."""
    level, tokens, slowdown = params["gate"], params["gate_prompt_tokens"], params["max_slowdown"]
    problems = []
    for number, entry in enumerate(params["gate_prompts"] or [], start=1):
        problems += [f"gate_prompts: entry {number}: {problem}" for problem in _check_prompt(entry)]
    if params["gate_prompts"] and level == "health":
        problems.append(
            "gate_prompts: with gate: health the model is asked nothing. Choose completion or full, or take them out."
        )
    if tokens is not None:
        problems += _check_tokens(tokens, params["context_size"])
    if slowdown is not None:
        problems += _check_slowdown(level, slowdown)
    return problems


def _check_prompt(entry: Mapping[str, Any]) -> list[str]:
    problems = []
    if not entry["prompt"].strip():
        problems.append("the prompt is empty. Write a question whose answer you know.")
    if not entry["pattern"]:
        problems.append("the pattern is empty, which every answer matches. Write what a good answer holds.")
    try:
        re.compile(entry["pattern"])
    except re.error as error:
        problems.append(
            f"the pattern {entry['pattern']!r} is no regular expression of Python's: {error}. Correct it; a backslash "
            "stands before a sign that is meant as itself."
        )
    if not 1 <= entry["timeout"] <= 3600:
        problems.append(f"the timeout {entry['timeout']} is out of range. Choose 1 to 3600 seconds.")
    return problems


def _check_tokens(tokens: int, context: int | None) -> list[str]:
    if tokens < 0:
        return [f"gate_prompt_tokens: {tokens} is out of range. Choose a number of tokens, or 0 for no long prompt."]
    if context and tokens > context - ROOM:
        return [
            f"gate_prompt_tokens: {tokens} tokens and an answer do not fit into context_size {context}. Choose at most "
            f"{max(0, context - ROOM)}."
        ]
    return []


def _check_slowdown(level: str, slowdown: str) -> list[str]:
    match = PERCENT.fullmatch(slowdown.strip())
    if match is None or float(match[1]) < 1:
        return [f"max_slowdown: {slowdown!r} has to be 1% to 99%, such as 10%; less is within what two runs differ by."]
    if level != "full":
        return [f"max_slowdown: with gate: {level} the token rate is not measured. Choose full, or take it out."]
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
    """The gate as it was recorded; a record without one, or with one of another version, asks for everything."""
    try:
        known = dict(value or {})
        return Gate(**{**known, "prompts": tuple(Prompt(**prompt) for prompt in known.get("prompts") or ())})
    except TypeError:
        return Gate()
