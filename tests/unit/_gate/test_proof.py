# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole proof of a server that answers as llama-server does, except where a test changes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import chat, proof
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import long_prompt
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import LEVELS, Gate, Prompt
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import (
    ANSWER,
    ARGUMENTS,
    MODEL,
    MODELS,
    PROPS,
    Drop,
    Server,
    changed,
    idle,
)

CHAT = chat.CHAT
FULL = Expectation(model=MODEL, arguments=ARGUMENTS, build="11669", gpus=True, gate=Gate())


def at(level: str, **more: Any) -> Expectation:
    return replace(FULL, gate=Gate(level=level, **more))


def refused(
    server: Server,
    expected: Expectation = FULL,
    key: str | None = None,
    gpu_problems: Callable[[], Sequence[Problem]] = lambda: (),
) -> str:
    with pytest.raises(NotProven) as error:
        proof.run(server.url, key, expected, gpu_problems)
    return str(error.value)


def test_a_sound_server(server: Server) -> None:
    answer = proof.run(server.url, None, FULL)
    time_to_first_token = answer.pop("time_to_first_token")
    seconds = answer.pop("seconds")
    assert (time_to_first_token >= 0, seconds >= 0) == (True, True)
    assert answer == {
        "gate": "full",
        "build": "b11669-Debian",
        "slots": 4,
        "context": 8192,
        "question": chat.QUESTION,
        "answer": "Paris.",
        "tokens": 3,
        "tokens_per_second": 200.0,
        "at_once": 4,
        "prompt_tokens": 2048,
        "prompt_tokens_per_second": 1234.6,
    }


def test_the_requests_to_a_sound_server(server: Server) -> None:
    proof.run(server.url, None, FULL)
    first, *many, measured = server.bodies(CHAT)
    assert first["messages"] == [{"role": "user", "content": chat.QUESTION}]
    assert len(many) == 4
    assert len({body["messages"][0]["content"] for body in many}) == 4
    assert max(body["max_tokens"] for body in many) <= 16
    assert (measured["stream"], measured["cache_prompt"]) == (True, False)
    assert [len(body["prompt"]) for body in server.bodies("/v1/completions")] == [2048]
    assert server.asked[-1] == ("/slots", None)


def test_health_does_not_use_the_model(server: Server) -> None:
    assert proof.run(server.url, None, at("health")) == {
        "gate": "health",
        "build": "b11669-Debian",
        "slots": 4,
        "context": 8192,
    }
    assert [path for path, dummy in server.asked] == ["/props", "/v1/models"]
    server.answers["/v1/models"] = changed(MODELS, "data", 0, "meta", "size", to=1)
    assert "The server runs another model" in refused(server, at("health"))


def test_completion_asks_once(server: Server) -> None:
    answer = proof.run(server.url, None, at("completion"))
    assert (answer["answer"], answer["tokens_per_second"], "at_once" in answer) == ("Paris.", 123.5, False)
    assert len(server.bodies(CHAT)) == 1


def test_every_level_of_the_table_exists() -> None:
    assert {level for level, dummy in proof.CHECKS} == set(LEVELS)


def test_all_differences_are_reported_together(server: Server) -> None:
    props = changed(PROPS, "default_generation_settings", "params", "temperature", to=0.8)
    server.answers["/props"] = {**props, "build_info": "b10000-abc", "model_path": "/models/b.gguf"}
    server.answers["/v1/models"] = changed(MODELS, "data", 0, "meta", "size", to=1)
    lines = refused(server).split("\n")
    assert len(lines) == 4
    assert lines[3].startswith("The server samples with temperature 0.8, expected is 1 of --temp.")
    assert server.bodies(CHAT) == []


def test_with_a_key(server: Server) -> None:
    server.key = "secret"
    assert proof.run(server.url, "secret", FULL)["at_once"] == 4
    assert server.bodies(CHAT)[0]["max_tokens"] == 1


def test_the_wrong_key(server: Server) -> None:
    server.key = "secret"
    message = refused(server, key="other")
    assert message.startswith("/props returned HTTP 401 instead of 200: ")
    assert "The server does not accept the first key in api_key_file" in message
    assert "other" not in message


def test_a_server_that_does_not_ask_for_a_key(server: Server) -> None:
    assert refused(server, key="secret").startswith(
        "api_key_file: a request without a key returned HTTP 200 instead of 401, "
    )


def test_the_gpus_are_read_after_the_model_has_worked(server: Server) -> None:
    asked: list[int] = []

    def gpu_problems() -> list[Problem]:
        asked.append(len(server.bodies(CHAT)))
        return []

    proof.run(server.url, None, FULL, gpu_problems)
    assert asked == [6]
    found = [Problem("", "It runs on the CPU"), Problem("", "GPU 1 is not used")]
    assert refused(server, gpu_problems=lambda: found) == "It runs on the CPU.\nGPU 1 is not used."
    for level in ("health", "completion"):
        proof.run(server.url, None, at(level), gpu_problems)
    assert asked == [6]


def test_the_operators_prompts(server: Server) -> None:
    prompts = (Prompt("Capital?", "^Par[a-z]+", 60), Prompt("Again?", "is", 60))
    for level in ("completion", "full"):
        answers = proof.run(server.url, None, at(level, prompts=prompts))["prompts"]
        assert [(answer["prompt"], answer["answer"]) for answer in answers] == [
            ("Capital?", "Paris."),
            ("Again?", "Paris."),
        ]


def test_the_operators_prompt_length(server: Server) -> None:
    assert proof.run(server.url, None, at("full", prompt_tokens=77))["prompt_tokens"] == 77
    assert "prompt_tokens" not in proof.run(server.url, None, at("full", prompt_tokens=0))
    assert len(server.bodies("/v1/completions")) == 1


def test_without_a_gpu_the_prompt_is_short(server: Server) -> None:
    assert proof.run(server.url, None, replace(FULL, gpus=False))["prompt_tokens"] == long_prompt.WITHOUT_GPU


def test_slower_than_the_last_release(server: Server) -> None:
    expected = replace(at("full", max_slowdown=0.1), last_rate=230.0, last_proven="2026-10-01T12:00:00Z")
    assert refused(server, expected) == (
        "max_slowdown: the server generates 200 tokens per second (best of 3), 13 % less than the 230 of the release "
        "of 2026-10-01T12:00:00Z; 10 % are allowed. Check which programs use the GPUs, and how many layers are on "
        "them. If the new rate is acceptable, raise max_slowdown."
    )
    assert proof.run(server.url, None, replace(expected, last_rate=220.0))["tokens_per_second"] == 200.0


def test_a_server_that_does_not_show_its_slots(server: Server) -> None:
    server.answers["/slots"] = (501, {"error": {}})
    assert proof.run(server.url, None, FULL)["at_once"] == 4


def test_slots_that_are_busy_for_another_client(server: Server) -> None:
    replies: list[int] = []

    def slots(dummy: Any) -> list[dict[str, Any]]:
        replies.append(1)
        return [idle(0), {**idle(1), "is_processing": True, "next_token": [{"n_decoded": len(replies)}]}]

    server.answers["/slots"] = slots
    assert proof.run(server.url, None, FULL)["at_once"] == 4
    assert len(replies) == 3


def test_one_of_the_parallel_completions_fails(server: Server) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "number 3" in body["messages"][0]["content"]:
            return 500, {"error": {"message": "CUDA error"}}
        return server.stream if body.get("stream") else ANSWER

    server.answers[CHAT] = answer
    message = refused(server)
    assert message.startswith("1 of 4 parallel completions (one per slot) failed; the first: /v1/chat/completions ")
    assert "CUDA error" in message
    server.answers[CHAT] = lambda body: Drop if "number 3" in body["messages"][0]["content"] else ANSWER
    assert "/v1/chat/completions did not answer" in refused(server)


@pytest.mark.parametrize("value", [{}, [], 7, None, {"data": []}, {"data": [{}]}, {"data": [{"meta": None}]}], ids=str)
def test_models_of_another_format(server: Server, value: Any) -> None:
    server.answers["/v1/models"] = value
    assert refused(server).startswith("/v1/models is not in the format of llama-server: ")


@pytest.mark.parametrize("value", [{}, [], 7, None, {"default_generation_settings": 1, "total_slots": 4}], ids=str)
def test_props_of_another_format(server: Server, value: Any) -> None:
    server.answers["/props"] = value
    message = refused(server)
    assert message.startswith("/props is not in the format of llama-server: ")
    assert message.count("/props") == 1


def test_a_sites_proxy_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert proof.run(server.url, None, FULL)["answer"] == "Paris."
