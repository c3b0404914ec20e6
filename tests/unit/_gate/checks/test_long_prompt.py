# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The length of the long prompt, and a server that cuts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import long_prompt
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import Server, changed, plain
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED, a_server


@pytest.mark.parametrize(
    ("asked", "context", "gpus", "tokens"),
    [
        (None, 65536, True, 16384),
        (None, 65536, False, long_prompt.WITHOUT_GPU),
        (None, 1024, False, 256),
        (1000, 65536, False, 1000),
        (0, 65536, True, 0),
    ],
)
def test_the_length(asked: int | None, context: int, gpus: bool, tokens: int) -> None:
    assert long_prompt.length(Gate(prompt_tokens=asked), context, gpus) == tokens


def test_a_length_that_no_slot_can_hold() -> None:
    with pytest.raises(NotProven) as error:
        long_prompt.length(Gate(prompt_tokens=5000), 4096, True)
    assert str(error.value) == (
        "gate_prompt_tokens: 5000 tokens do not fit into a slot of this server, which holds 4096. Choose at most 4032, "
        "or raise context_size."
    )


def check(server: Server, tokens: int = 100) -> dict[str, Any]:
    return long_prompt.check(a_server(server.url, replace(EXPECTED, gate=Gate(prompt_tokens=tokens))))


def test_a_prompt_of_exactly_this_length(server: Server) -> None:
    assert check(server) == {"prompt_tokens": 100, "prompt_tokens_per_second": 1234.6}
    (body,) = server.bodies("/v1/completions")
    assert body["prompt"][:4] == [5, 6, 7, 5]
    assert (len(body["prompt"]), body["cache_prompt"], body["max_tokens"] <= 16) == (100, False, True)


def test_no_prompt(server: Server) -> None:
    assert check(server, 0) == {}
    assert server.asked == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("prompt_tokens", 99, "the server evaluated 99 of the 100 tokens of a prompt and generated 8"),
        ("completion_tokens", 0, "the server evaluated 100 of the 100 tokens of a prompt and generated 0"),
    ],
)
def test_a_prompt_that_is_cut_or_not_answered(server: Server, key: str, value: int, text: str) -> None:
    server.answers["/v1/completions"] = lambda body: changed(plain(body), "usage", key, to=value)
    with pytest.raises(NotProven, match=text):
        check(server)


@pytest.mark.parametrize("value", [{}, {"tokens": []}, {"tokens": ["a"]}, []], ids=str)
def test_tokens_of_another_format(server: Server, value: Any) -> None:
    server.answers["/tokenize"] = value
    with pytest.raises(NotProven, match="^/tokenize is not in the format of llama-server"):
        check(server)


def test_a_completion_of_another_format(server: Server) -> None:
    server.answers["/v1/completions"] = {"content": "old"}
    with pytest.raises(NotProven, match="^The completion of a long prompt is not in the format of llama-server"):
        check(server)
