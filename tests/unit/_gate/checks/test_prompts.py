# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own prompts, and which answers are accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import prompts
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate, Prompt
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import Hang, Server, piece
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED, a_server


def check(server: Server, *asked: Prompt) -> dict[str, Any]:
    return prompts.check(a_server(server.url, replace(EXPECTED, gate=Gate(prompts=asked))))


def test_no_prompts(server: Server) -> None:
    assert check(server) == {}


def test_every_answer_that_does_not_match(server: Server) -> None:
    with pytest.raises(NotProven) as error:
        check(server, Prompt("2+2?", "4", 60), Prompt("Fine?", "is", 60), Prompt("3+3?", "(?i)six", 60))
    first, second = map(str, error.value.problems)
    assert first.startswith("gate_prompts: '2+2?': the answer does not match '4': 'Paris.'. If the answer is good")
    assert second.startswith("gate_prompts: '3+3?': ")


def test_reasoning_is_not_the_answer(server: Server) -> None:
    server.stream = (piece(reasoning_content="four"), piece(content="4"))
    assert check(server, Prompt("2+2?", "^4$", 60))["prompts"][0]["answer"] == "4"
    server.stream = (piece(reasoning_content="four 4"),)
    with pytest.raises(NotProven, match="the model used 1024 tokens for its reasoning and did not answer"):
        check(server, Prompt("2+2?", "4", 60))


def test_an_answer_that_is_not_complete_in_time(server: Server) -> None:
    server.stream = (piece(content="4 and"), Hang)
    with pytest.raises(NotProven, match="the answer was not complete within 1 s; so far it is '4 and'"):
        check(server, Prompt("2+2?", "4", 1))


def test_an_event_of_another_format(server: Server) -> None:
    server.stream = ({"choices": [{"delta": {"content": 4}}]},)
    with pytest.raises(NotProven, match="An event of the answer is not in the format of llama-server"):
        check(server, Prompt("2+2?", "4", 60))
