# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof against a server that says what the test wants it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import proof

MODEL = {"path": "/data/models/a.gguf", "tensor_bytes": 96576768, "parameters": 134515008}
MODELS = {"data": [{"id": "a", "meta": {"size": 96576768, "n_params": 134515008}}]}
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": " Paris. "}}],
    "usage": {"completion_tokens": 3},
    "timings": {"predicted_per_second": 123.456},
}


class Server(ThreadingHTTPServer):
    """Answers with what it was given; with ``key`` only to those who have it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers: dict[str, Any] = {"/v1/models": MODELS, "/v1/chat/completions": ANSWER}
        self.status = 200
        self.key: str | None = None
        self.asked: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self.reply(401, {"error": "authentication_error"})
        return self.reply(self.server.status, self.server.answers[self.path])

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()

    def reply(self, status: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_a_sound_server(server: Server) -> None:
    answer = proof.prove(server.url, None, MODEL)
    assert (answer["answer"], answer["tokens"], answer["tokens_per_second"]) == ("Paris.", 3, 123.5)
    assert answer["question"] == proof.QUESTION == server.asked[0]["messages"][0]["content"]
    assert (len(server.asked), server.asked[0]["max_tokens"]) == (1, proof.TOKENS)


def test_a_model_that_thinks_first(server: Server) -> None:
    message = {"content": None, "reasoning_content": "Let me see"}
    server.answers["/v1/chat/completions"] = {**ANSWER, "choices": [{"message": message}], "timings": None}
    answer = proof.prove(server.url, None, MODEL)
    assert (answer["answer"], answer["tokens_per_second"]) == ("Let me see", None)


def refused(server: Server, key: str | None = None) -> str:
    with pytest.raises(proof.NotProven) as error:
        proof.prove(server.url, key, MODEL)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", 1, "tensor_bytes is 1, that of /data/models/a.gguf is 96576768"),
        ("n_params", 2, "parameters is 2, that of /data/models/a.gguf is 134515008"),
    ],
)
def test_another_model(server: Server, name: str, value: int, said: str) -> None:
    server.answers["/v1/models"] = {"data": [{"meta": {**MODELS["data"][0]["meta"], name: value}}]}  # type: ignore[dict-item]
    assert said in refused(server)
    assert server.asked == []


def test_a_model_of_which_nothing_is_known_is_not_compared(server: Server) -> None:
    assert proof.prove(server.url, None, {"path": "/x", "tensor_bytes": None})["answer"] == "Paris."


@pytest.mark.parametrize("value", [{}, [], 7, None, {"data": []}, {"data": [{}]}, {"data": [{"meta": None}]}], ids=str)
def test_models_of_another_shape(server: Server, value: Any) -> None:
    server.answers["/v1/models"] = value
    assert refused(server).startswith("/v1/models has not the shape that llama-server gives: ")


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "x",
        {**ANSWER, "choices": []},
        {**ANSWER, "choices": [{"message": []}]},
        {**ANSWER, "choices": [{"message": {"content": ["a"], "reasoning_content": "b"}}]},
        {**ANSWER, "usage": None},
        {**ANSWER, "usage": {"completion_tokens": "many"}},
        {**ANSWER, "timings": [1]},
        {**ANSWER, "timings": {"predicted_per_second": "fast"}},
    ],
    ids=str,
)
def test_a_completion_of_another_shape(server: Server, value: Any) -> None:
    server.answers["/v1/chat/completions"] = value
    assert refused(server).startswith("the completion has not the shape of an answer: ")


@pytest.mark.parametrize(("text", "tokens"), [("", 3), (" \n", 3), ("Paris", 0)])
def test_an_empty_completion(server: Server, text: str, tokens: int) -> None:
    answer = {**ANSWER, "choices": [{"message": {"content": text}}], "usage": {"completion_tokens": tokens}}
    server.answers["/v1/chat/completions"] = answer
    assert refused(server) == f"the completion is empty ({tokens} tokens), though the server says 200"


def test_another_status(server: Server) -> None:
    server.status = 500
    server.answers["/v1/models"] = {"error": {"message": "CUDA error"}}
    assert refused(server) == '/v1/models answered HTTP 500 instead of 200: {"error": {"message": "CUDA error"}}'


def test_no_json(server: Server) -> None:
    server.answers["/v1/models"] = b"<html>proxy</html>"
    assert refused(server) == "/v1/models did not answer JSON: <html>proxy</html>"


def test_with_a_key(server: Server) -> None:
    server.key = "secret"
    assert proof.prove(server.url, "secret", MODEL)["answer"] == "Paris."
    assert len(server.asked) == 2
    assert server.asked[0]["max_tokens"] == 1


def test_the_wrong_key(server: Server) -> None:
    server.key = "secret"
    assert "/v1/models answered HTTP 401 instead of 200" in refused(server, "other")


def test_a_server_that_asks_for_no_key_is_refused(server: Server) -> None:
    assert refused(server, "secret") == (
        "a request without a key was answered HTTP 200 instead of 401: authentication is off"
    )


def test_nobody_listens(server: Server) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(proof.NotProven, match=f"the server at {url} did not answer: "):
        proof.prove(url, None, MODEL)


def test_a_sites_proxy_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert proof.prove(server.url, None, MODEL)["answer"] == "Paris."
