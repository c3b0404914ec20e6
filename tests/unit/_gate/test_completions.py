# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as an answer, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import completions
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import Client, NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate, Prompt
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import (
    ANSWER,
    Hang,
    Server,
    changed,
    piece,
    plain,
)

CHAT = completions.CHAT


def first(server: Server) -> dict[str, Any]:
    return completions.first(Client(server.url, None), 5)


def message(content: Any, tokens: int = 3, **more: Any) -> dict[str, Any]:
    answer = changed(ANSWER, "choices", 0, "message", to={"content": content, **more})
    return dict(changed(answer, "usage", "completion_tokens", to=tokens))


def test_a_model_that_thinks_first(server: Server) -> None:
    server.answers[CHAT] = {**message(None, reasoning_content="Let me see"), "timings": None}
    assert (first(server)["answer"], first(server)["tokens_per_second"]) == ("Let me see", None)


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
def test_a_completion_of_another_shape(server: Server, value: Any) -> None:
    server.answers[CHAT] = value
    with pytest.raises(NotProven, match="^the completion has not the shape that llama-server gives, found is "):
        first(server)


@pytest.mark.parametrize(("text", "tokens"), [("", 3), (" \n", 3), ("Paris", 0)])
def test_an_empty_completion(server: Server, text: str, tokens: int) -> None:
    server.answers[CHAT] = message(text, tokens)
    with pytest.raises(NotProven, match=rf"^the completion is empty \({tokens} tokens\), though the server says 200"):
        first(server)


def at_once(server: Server, count: int) -> int:
    return completions.at_once(Client(server.url, None), count, 5)


def test_as_many_at_once_as_there_are_slots(server: Server) -> None:
    """None of them is answered before all of them have been asked."""
    count = 9

    def chat(dummy: Any) -> Any:
        while len(server.bodies(CHAT)) < count:
            if server.end.wait(0.01):
                break
        return ANSWER

    server.answers[CHAT] = chat
    assert at_once(server, count) == count


def test_an_answer_without_tokens_among_many(server: Server) -> None:
    server.answers[CHAT] = message("", 0)
    with pytest.raises(NotProven, match="of 3 completions at once, one for each slot, 3 failed. The first of them: it"):
        at_once(server, 3)


def test_white_space_is_an_answer_where_only_the_slots_are_proven(server: Server) -> None:
    server.answers[CHAT] = message("\n", 8)
    assert at_once(server, 2) == 2


@pytest.mark.parametrize(
    ("asked", "context", "gpus", "tokens"),
    [
        (None, 65536, True, 16384),
        (None, 65536, False, completions.CPU_PROMPT),
        (None, 1024, False, 256),
        (1000, 65536, False, 1000),
        (0, 65536, True, 0),
    ],
)
def test_the_length_of_the_long_prompt(asked: int | None, context: int, gpus: bool, tokens: int) -> None:
    assert completions.long_prompt_tokens(Gate(prompt_tokens=asked), context, gpus) == tokens


def test_a_long_prompt_that_no_slot_can_hold() -> None:
    with pytest.raises(NotProven, match="gate_prompt_tokens is 5000, and a slot of this server holds 4096 tokens"):
        completions.long_prompt_tokens(Gate(prompt_tokens=5000), 4096, True)


def long_prompt(server: Server, tokens: int = 100) -> dict[str, Any]:
    return completions.long_prompt(Client(server.url, None), tokens, 5)


def test_a_long_prompt_is_of_exactly_this_length(server: Server) -> None:
    assert long_prompt(server) == {"prompt_tokens": 100, "prompt_tokens_per_second": 1234.6}
    (body,) = server.bodies("/v1/completions")
    assert body["prompt"][:4] == [5, 6, 7, 5]
    assert (len(body["prompt"]), body["cache_prompt"], body["max_tokens"] <= 16) == (100, False, True)


@pytest.mark.parametrize(("key", "value"), [("prompt_tokens", 99), ("completion_tokens", 0)])
def test_a_long_prompt_that_is_cut_or_not_answered(server: Server, key: str, value: int) -> None:
    server.answers["/v1/completions"] = lambda body: changed(plain(body), "usage", key, to=value)
    with pytest.raises(NotProven, match="of a prompt of 100 tokens the server took"):
        long_prompt(server)


@pytest.mark.parametrize("value", [{}, {"tokens": []}, {"tokens": ["a"]}, []], ids=str)
def test_tokens_of_another_shape(server: Server, value: Any) -> None:
    server.answers["/tokenize"] = value
    with pytest.raises(NotProven, match="^/tokenize has not the shape"):
        long_prompt(server)


def test_a_long_answer_of_another_shape(server: Server) -> None:
    server.answers["/v1/completions"] = {"content": "old"}
    with pytest.raises(NotProven, match="^the completion of a long prompt has not the shape"):
        long_prompt(server)


def asked(server: Server, *prompts: Prompt) -> list[dict[str, Any]]:
    return completions.asked(Client(server.url, None), prompts)


def test_an_answer_that_does_not_match(server: Server) -> None:
    with pytest.raises(NotProven) as error:
        asked(server, Prompt("2+2?", "4"), Prompt("Fine?", "is"), Prompt("3+3?", "(?i)six"))
    assert len(error.value.problems) == 2
    assert error.value.problems[0].startswith("gate_prompts: '2+2?': the answer does not match '4', it is 'Paris.'.")
    assert "'3+3?'" in error.value.problems[1]


def test_thoughts_are_no_answer(server: Server) -> None:
    server.stream = (piece(reasoning_content="four"), piece(content="4"))
    assert asked(server, Prompt("2+2?", "^4$"))[0]["answer"] == "4"
    server.stream = (piece(reasoning_content="four 4"),)
    with pytest.raises(NotProven, match="the model was still thinking after 1024 tokens and has said nothing"):
        asked(server, Prompt("2+2?", "4"))


def test_an_answer_that_does_not_end_in_time(server: Server) -> None:
    server.stream = (piece(content="4 and"), Hang)
    with pytest.raises(NotProven, match="not complete within its timeout of 1 s, so far it is '4 and'"):
        asked(server, Prompt("2+2?", "4", 1))


def test_pieces_of_another_shape(server: Server) -> None:
    server.stream = ({"choices": [{"delta": {"content": 4}}]},)
    with pytest.raises(NotProven, match="a piece of the answer has not the shape"):
        asked(server, Prompt("2+2?", "4"))
