# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole proof against a server that answers as llama-server does, or as the test wants it to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import completions, proof
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate, Prompt
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

CHAT = completions.CHAT
FULL = Expectation(model=MODEL, arguments=ARGUMENTS, build="11669", gpus=True, gate=Gate())


def at(level: str, **more: Any) -> Expectation:
    return replace(FULL, gate=Gate(level=level, **more))


def refused(
    server: Server,
    expected: Expectation = FULL,
    key: str | None = None,
    gpu_check: Callable[[], Sequence[str]] | None = None,
) -> str:
    with pytest.raises(proof.NotProven) as error:
        proof.prove(server.url, key, expected, gpu_check)
    return str(error.value)


def test_a_sound_server(server: Server) -> None:
    answer = proof.prove(server.url, None, FULL)
    time_to_first_token = answer.pop("time_to_first_token")
    seconds = answer.pop("seconds")
    assert (time_to_first_token >= 0, seconds >= 0) == (True, True)
    assert answer == {
        "gate": "full",
        "build": "b11669-Debian",
        "slots": 4,
        "context": 8192,
        "question": completions.QUESTION,
        "answer": "Paris.",
        "tokens": 3,
        "tokens_per_second": 200.0,
        "at_once": 4,
        "prompt_tokens": 2048,
        "prompt_tokens_per_second": 1234.6,
    }


def test_what_a_sound_server_is_asked(server: Server) -> None:
    proof.prove(server.url, None, FULL)
    first, *many, measured = server.bodies(CHAT)
    assert first["messages"] == [{"role": "user", "content": completions.QUESTION}]
    assert len(many) == 4
    assert len({body["messages"][0]["content"] for body in many}) == 4
    assert max(body["max_tokens"] for body in many) <= 16
    assert (measured["stream"], measured["cache_prompt"]) == (True, False)
    assert [len(body["prompt"]) for body in server.bodies("/v1/completions")] == [2048]
    assert server.asked[-1] == ("/slots", None)


def test_health_asks_the_model_nothing(server: Server) -> None:
    assert proof.prove(server.url, None, at("health")) == {
        "gate": "health",
        "build": "b11669-Debian",
        "slots": 4,
        "context": 8192,
    }
    assert [path for path, dummy in server.asked] == ["/props", "/v1/models"]
    server.answers["/v1/models"] = changed(MODELS, "data", 0, "meta", "size", to=1)
    assert "the server holds another model" in refused(server, at("health"))


def test_completion_asks_once(server: Server) -> None:
    answer = proof.prove(server.url, None, at("completion"))
    assert (answer["answer"], answer["tokens_per_second"], "at_once" in answer) == ("Paris.", 123.5, False)
    assert len(server.bodies(CHAT)) == 1


def test_a_bare_model_has_to_answer_once(server: Server) -> None:
    assert proof.prove(server.url, None, MODEL)["answer"] == "Paris."
    assert len(server.bodies(CHAT)) == 1


def test_everything_that_differs_is_said_at_once(server: Server) -> None:
    props = changed(PROPS, "default_generation_settings", "params", "temperature", to=0.8)
    server.answers["/props"] = {**props, "build_info": "b10000-abc", "model_path": "/models/b.gguf"}
    server.answers["/v1/models"] = changed(MODELS, "data", 0, "meta", "size", to=1)
    said = refused(server).split(".\n")
    assert len(said) == 4
    assert said[3].startswith("the server samples with temperature 0.8, started with --temp 1.")
    assert server.bodies(CHAT) == []


def test_with_a_key(server: Server) -> None:
    server.key = "secret"
    assert proof.prove(server.url, "secret", FULL)["at_once"] == 4
    assert server.asked[0][0] == CHAT
    assert server.asked[0][1]["max_tokens"] == 1


def test_the_wrong_key(server: Server) -> None:
    server.key = "secret"
    said = refused(server, key="other")
    assert said.startswith("/props answered HTTP 401 instead of 200: ")
    assert "It does not take the first key of api_key_file" in said
    assert "other" not in said


def test_a_server_that_asks_for_no_key_is_refused(server: Server) -> None:
    assert refused(server, key="secret").startswith(
        "a request without a key was answered HTTP 200 instead of 401: authentication is off."
    )


def test_the_gpus_are_looked_at_when_the_model_has_worked(server: Server) -> None:
    asked: list[int] = []

    def check() -> list[str]:
        asked.append(len(server.bodies(CHAT)))
        return []

    proof.prove(server.url, None, FULL, check)
    assert asked == [6]
    assert refused(server, gpu_check=lambda: ["it runs on the CPU", "GPU 1 is not used"]) == (
        "it runs on the CPU.\nGPU 1 is not used"
    )
    for level in ("health", "completion"):
        proof.prove(server.url, None, at(level), check)
    assert asked == [6]


def test_the_operators_prompts(server: Server) -> None:
    prompts = (Prompt("Capital?", "^Par[a-z]+"), Prompt("Again?", "is"))
    for level in ("completion", "full"):
        answers = proof.prove(server.url, None, at(level, prompts=prompts))["prompts"]
        assert [(answer["prompt"], answer["answer"]) for answer in answers] == [
            ("Capital?", "Paris."),
            ("Again?", "Paris."),
        ]


def test_a_prompt_length_of_the_operators(server: Server) -> None:
    assert proof.prove(server.url, None, at("full", prompt_tokens=77))["prompt_tokens"] == 77
    assert "prompt_tokens" not in proof.prove(server.url, None, at("full", prompt_tokens=0))
    assert len(server.bodies("/v1/completions")) == 1


def test_without_a_gpu_the_prompt_is_short(server: Server) -> None:
    assert proof.prove(server.url, None, replace(FULL, gpus=False))["prompt_tokens"] == completions.CPU_PROMPT


def test_slower_than_the_last_release(server: Server) -> None:
    expected = replace(at("full", max_slowdown=0.1), last_rate=230.0, last_proven="2026-10-01T12:00:00Z")
    assert refused(server, expected) == (
        "it makes 200 tokens per second, best of 3, and the release of 2026-10-01T12:00:00Z made 230: that is 13 % "
        "slower, and max_slowdown allows 10 %. See who else uses the GPUs and how many layers are on them; if it has "
        "to be so, set another max_slowdown"
    )
    assert proof.prove(server.url, None, replace(expected, last_rate=220.0))["tokens_per_second"] == 200.0


def test_a_server_without_slots_to_look_at(server: Server) -> None:
    server.answers["/slots"] = (501, {"error": {}})
    assert proof.prove(server.url, None, FULL)["at_once"] == 4


def test_slots_that_work_for_somebody_else_are_waited_for(server: Server) -> None:
    looks: list[int] = []

    def slots(dummy: Any) -> list[dict[str, Any]]:
        looks.append(1)
        return [idle(0), {**idle(1), "is_processing": True, "next_token": [{"n_decoded": len(looks)}]}]

    server.answers["/slots"] = slots
    assert proof.prove(server.url, None, FULL)["at_once"] == 4
    assert len(looks) == 3


def test_one_of_many_at_once_fails(server: Server) -> None:
    def chat(body: dict[str, Any]) -> Any:
        if "number 3" in body["messages"][0]["content"]:
            return 500, {"error": {"message": "CUDA error"}}
        return server.stream if body.get("stream") else ANSWER

    server.answers[CHAT] = chat
    said = refused(server)
    assert said.startswith("of 4 completions at once, one for each slot, 1 failed. The first of them: /v1/chat/")
    assert "CUDA error" in said
    server.answers[CHAT] = lambda body: Drop if "number 3" in body["messages"][0]["content"] else ANSWER
    assert "did not answer /v1/chat/completions" in refused(server)


@pytest.mark.parametrize("value", [{}, [], 7, None, {"data": []}, {"data": [{}]}, {"data": [{"meta": None}]}], ids=str)
def test_models_of_another_shape(server: Server, value: Any) -> None:
    server.answers["/v1/models"] = value
    assert refused(server).startswith("/v1/models has not the shape that llama-server gives, found is ")


@pytest.mark.parametrize("value", [{}, [], 7, None, {"default_generation_settings": 1, "total_slots": 4}], ids=str)
def test_props_of_another_shape(server: Server, value: Any) -> None:
    server.answers["/props"] = value
    assert refused(server).startswith("/props has not the shape that llama-server gives, found is ")


def test_a_sites_proxy_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert proof.prove(server.url, None, FULL)["answer"] == "Paris."
