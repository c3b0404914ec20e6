# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's default sampling values against its arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import sampling
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ARGUMENTS, PROPS, changed
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED, a_server


def check(props: Any, arguments: tuple[str, ...] = ARGUMENTS) -> dict[str, Any]:
    return sampling.check(a_server(expected=replace(EXPECTED, arguments=arguments), props=props))


def with_value(key: str, value: float) -> Any:
    return changed(PROPS, "default_generation_settings", "params", key, to=value)


def test_values_as_in_the_arguments() -> None:
    assert check(PROPS) == {}
    assert set(sampling.expected(ARGUMENTS)) == {"temperature", "top_p", "min_p", "repeat_penalty"}


@pytest.mark.parametrize(
    ("key", "found", "text"),
    [
        ("temperature", 0.8, "temperature 0.8, expected is 1 of --temp."),
        ("top_p", 0.9501, "top_p 0.9501, expected is 0.95 of --top-p."),
        ("min_p", 0.05, "min_p 0.05, expected is 0.01 of --min-p."),
        ("repeat_penalty", 1.1, "repeat_penalty 1.1, expected is 1 of --repeat-penalty."),
    ],
)
def test_a_value_that_differs(key: str, found: float, text: str) -> None:
    with pytest.raises(NotProven) as error:
        check(with_value(key, found))
    (problem,) = error.value.problems
    assert str(problem).startswith(f"The server samples with {text}")


@pytest.mark.parametrize(
    ("arguments", "key", "found"),
    [
        (("--temp", "-1"), "temperature", 0.0),
        (("--seed", "-1"), "seed", 4294967295),
        (("-s", "42"), "seed", 42),
        (("--top-k", "1", "--top_k", "7"), "top_k", 7),
        (("--top-k", "7x"), "top_k", 40),
        (("--typical-p", "0.7"), "typical_p", 0.699999988079071),
    ],
)
def test_how_the_arguments_are_read(arguments: tuple[str, ...], key: str, found: float) -> None:
    assert check(with_value(key, found), arguments) == {}


def test_a_key_that_the_build_does_not_report_is_not_compared() -> None:
    assert check(PROPS, ("--adaptive-target", "0.5")) == {}


@pytest.mark.parametrize(
    "props", [{}, {"default_generation_settings": {}}, with_value("top_p", "x")], ids=["empty", "no params", "text"]
)
def test_another_format(props: Any) -> None:
    with pytest.raises(NotProven, match="^/props is not in the format of llama-server"):
        check(props)
