# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that do not answer, or return something else than llama-server."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import client
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import ApiClient, NotInTime, NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import OperatorError, Problem
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import Drop, Hang, Server, piece

CHAT = "/v1/chat/completions"


def test_each_problem_is_a_line() -> None:
    one, two = Problem("", "One", "Do it."), Problem("gate", "two", "Stop.")
    error: OperatorError = NotProven(one, two)
    assert str(error) == "One. Do it.\ngate: two. Stop."
    assert error.problems == (one, two)


@pytest.mark.parametrize("status", sorted(client.REMEDIES))
def test_another_status(server: Server, status: int) -> None:
    server.answers["/props"] = (status, {"error": {"message": "CUDA error"}})
    with pytest.raises(NotProven) as error:
        ApiClient(server.url, None).get("/props", 5)
    assert str(error.value) == (
        f'/props returned HTTP {status} instead of 200: {{"error": {{"message": "CUDA error"}}}}. '
        f"{client.REMEDIES[status]}"
    )


def test_an_unexpected_status(server: Server) -> None:
    server.answers["/props"] = (418, b"tea")
    with pytest.raises(NotProven, match="^/props returned HTTP 418 instead of 200: tea. Read the log of the server.$"):
        ApiClient(server.url, None).get("/props", 5)


def test_not_json(server: Server) -> None:
    server.answers["/props"] = b"<html>proxy</html>"
    with pytest.raises(NotProven, match="^/props did not return JSON: <html>proxy</html>. Check that the program"):
        ApiClient(server.url, None).get("/props", 5)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answers["/props"] = (302, b"")
    with pytest.raises(NotProven, match="HTTP 302"):
        ApiClient(server.url, None).get("/props", 5)


def test_nobody_listens(server: Server) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(NotProven, match=f"^{url}/props did not answer: "):
        ApiClient(url, None).get("/props", 5)


def test_a_server_that_hangs(server: Server) -> None:
    server.answers["/props"] = Hang
    with pytest.raises(NotInTime, match="did not answer within 0 s. A GPU hang looks like this"):
        ApiClient(server.url, None).get("/props", 0.2)


def test_a_server_that_crashes(server: Server) -> None:
    server.answers["/props"] = Drop
    with pytest.raises(NotProven, match="The server ended, or was stopped, during the request"):
        ApiClient(server.url, None).get("/props", 5)


def test_every_request_has_a_connection_of_its_own(server: Server) -> None:
    """The server may close an idle connection at the moment when the next request is sent."""
    one = ApiClient(server.url, None)
    assert one.get("/props", 5) == one.get("/props", 5)
    assert len(set(server.peers)) == 2


def events(server: Server, timeout: float = 5) -> list[dict[str, Any]]:
    return list(ApiClient(server.url, None).stream(CHAT, {}, timeout))


def test_a_stream(server: Server) -> None:
    server.stream = (b": comment\n\n", piece(content="a"), b"\n", piece(content="b"))
    assert events(server) == [piece(content="a"), piece(content="b")]
    assert server.bodies(CHAT) == [{"stream": True}]


def test_a_stream_with_nothing_but_comments(server: Server) -> None:
    server.stream = (piece(content="a"), Hang)
    with pytest.raises(NotInTime, match="did not answer within 0 s"):
        events(server, 0.3)


@pytest.mark.parametrize(
    "wrong", [{"error": {"message": "CUDA error"}}, b'error: {"message": "CUDA error"}\n\n'], ids=["data", "error"]
)
def test_a_stream_that_ends_with_an_error(server: Server, wrong: Any) -> None:
    server.stream = (piece(content="a"), wrong)
    with pytest.raises(NotProven, match="ended its reply with an error: .*CUDA error"):
        events(server)


@pytest.mark.parametrize("wrong", [b"data: {\n\n", b"data: 7\n\n"])
def test_a_stream_of_another_format(server: Server, wrong: bytes) -> None:
    server.stream = (wrong,)
    with pytest.raises(NotProven, match="^An event of /v1/chat/completions is not in the format of llama-server"):
        events(server)


def test_a_stream_that_is_refused(server: Server) -> None:
    server.answers[CHAT] = (503, {"error": "busy"})
    with pytest.raises(NotProven, match="returned HTTP 503 instead of 200"):
        events(server)


def test_a_stream_that_is_cut(server: Server) -> None:
    server.stream = (piece(content="a"), Drop)
    with pytest.raises(NotProven, match="was cut off: .*The server ended, or was stopped, during the request"):
        events(server)


def test_an_event_is_available_when_it_arrives(server: Server) -> None:
    server.stream = (piece(content="a"), Hang)
    stream = ApiClient(server.url, None).stream(CHAT, {}, 5)
    assert next(stream) == piece(content="a")
