# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's options: which values are accepted, and the problems of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import options
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate, Prompt


def params(**changed: Any) -> dict[str, Any]:
    return {
        "gate": "full",
        "gate_prompts": [],
        "gate_prompt_tokens": None,
        "max_slowdown": None,
        "context_size": 65536,
        **changed,
    }


def prompt(**changed: Any) -> dict[str, Any]:
    return {"prompt": "2+2?", "pattern": "4", "timeout": 60, **changed}


def test_the_default_is_the_full_proof() -> None:
    assert options.check(params()) == []
    assert options.parse(params()) == Gate() == Gate("full", (), None, None)


def test_all_options() -> None:
    given = params(
        gate_prompts=[prompt(), prompt(prompt="3?", pattern="(?i)three", timeout=5)],
        gate_prompt_tokens=1000,
        max_slowdown="12.5 %",
    )
    assert options.check(given) == []
    assert options.parse(given) == Gate("full", (Prompt("2+2?", "4", 60), Prompt("3?", "(?i)three", 5)), 1000, 0.125)


def test_prompts_without_the_full_proof() -> None:
    assert options.check(params(gate="completion", gate_prompts=[prompt()], gate_prompt_tokens=0)) == []


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"gate": "health", "gate_prompts": [prompt()]}, "gate_prompts: gate=health sends no prompts to the model."),
        (
            {"gate": "completion", "max_slowdown": "10%"},
            "max_slowdown: gate=completion does not measure the",
        ),
        ({"gate_prompt_tokens": -1}, "gate_prompt_tokens: -1 is out of range."),
        ({"gate_prompt_tokens": 65536}, "do not fit into context_size 65536. Choose at most 65472."),
        (
            {"max_slowdown": "10"},
            "max_slowdown: '10' is not a percentage from 1% to 99%. Choose",
        ),
        ({"max_slowdown": "0.5%"}, "max_slowdown: '0.5%' is not a percentage from 1% to 99%."),
        ({"max_slowdown": "100%"}, "max_slowdown: '100%' is not a percentage from 1% to 99%."),
        ({"max_slowdown": ""}, "max_slowdown: '' is not a percentage from 1% to 99%."),
        ({"gate_prompts": [prompt(prompt=" ")]}, "gate_prompts: entry 1: the prompt is empty."),
        ({"gate_prompts": [prompt(), prompt(pattern="")]}, "gate_prompts: entry 2: the pattern is empty"),
        (
            {"gate_prompts": [prompt(pattern="(4")]},
            "entry 1: the pattern '(4' is not a Python regular expression",
        ),
        ({"gate_prompts": [prompt(timeout=0)]}, "gate_prompts: entry 1: the timeout 0 is out of range."),
    ],
    ids=str,
)
def test_problems(changed: dict[str, Any], text: str) -> None:
    (problem,) = options.check(params(**changed))
    assert text in str(problem)
    assert problem.option in changed
    assert problem.remedy.endswith(".")


def test_all_problems_at_once() -> None:
    wrong = params(gate_prompts=[prompt(pattern="(", timeout=0)], gate_prompt_tokens=-1, max_slowdown="fast")
    assert len(options.check(wrong)) == 4


def test_the_default_context_is_not_known_yet() -> None:
    assert options.check(params(gate_prompt_tokens=100000, context_size=0)) == []
    assert options.check(params(gate_prompt_tokens=100000, context_size=None)) == []


@pytest.mark.parametrize(
    ("level", "back"), [("full", "completion"), ("completion", "completion"), ("health", "health")]
)
def test_a_rollback_only_has_to_answer(level: str, back: str) -> None:
    assert Gate(level, (Prompt("a", "b", 60),), 5, 0.1).for_rollback() == Gate(back)


def test_a_recorded_gate_is_the_same() -> None:
    gate = Gate("completion", (Prompt("a", "b", 3),), 5, 0.1)
    assert options.from_dict(json.loads(json.dumps(gate.as_dict()))) == gate
    assert options.from_dict(json.loads(json.dumps(Gate().as_dict()))) == Gate()


@pytest.mark.parametrize("value", [None, {}, {"newer": 1}, {"prompts": [{"newer": 1}]}, {"level": "newer"}], ids=str)
def test_a_record_of_another_version_gets_the_full_proof(value: Any) -> None:
    assert options.from_dict(value) == Gate()
