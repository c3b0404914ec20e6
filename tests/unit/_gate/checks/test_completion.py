# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as an answer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import chat
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import completion
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ANSWER, Server, message
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import a_server


def check(server: Server) -> dict[str, Any]:
    return completion.check(a_server(server.url))


def test_a_model_that_reasons_first(server: Server) -> None:
    server.answers[chat.CHAT] = {**message(None, reasoning_content="Let me see"), "timings": None}
    found = check(server)
    assert (found["answer"], found["tokens_per_second"]) == ("Let me see", None)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "x",
        {**ANSWER, "choices": []},
        {**ANSWER, "choices": [{"message": []}]},
        {**ANSWER, "choices": [{"message": {"content": ["a"], "reasoning_content": "b"}}]},
        {**ANSWER, "choices": [{"message": {"content": 7}}]},
        {**ANSWER, "usage": None},
        {**ANSWER, "usage": {"completion_tokens": "many"}},
        {**ANSWER, "timings": [1]},
        {**ANSWER, "timings": {"predicted_per_second": "fast"}},
    ],
    ids=str,
)
def test_another_format(server: Server, value: Any) -> None:
    server.answers[chat.CHAT] = value
    with pytest.raises(NotProven, match="^The completion is not in the format of llama-server: "):
        check(server)


@pytest.mark.parametrize(("text", "tokens"), [("", 3), (" \n", 3), ("Paris", 0)])
def test_an_empty_completion(server: Server, text: str, tokens: int) -> None:
    server.answers[chat.CHAT] = message(text, tokens)
    with pytest.raises(NotProven, match=rf"^The completion is empty \({tokens} tokens\), with HTTP status 200"):
        check(server)
