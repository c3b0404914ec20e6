# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told when a server does not answer, or answers something else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import client
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import Client, NotInTime, NotProven
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import Drop, Hang, Server, piece

CHAT = "/v1/chat/completions"


def test_several_problems_are_lines() -> None:
    assert str(NotProven("one")) == "one"
    assert str(NotProven(["one", "two"])) == "one.\ntwo"


@pytest.mark.parametrize("status", sorted(client.REMEDIES))
def test_another_status(server: Server, status: int) -> None:
    server.answers["/props"] = (status, {"error": {"message": "CUDA error"}})
    with pytest.raises(NotProven) as error:
        Client(server.url, None).get("/props", 5)
    assert str(error.value) == (
        f'/props answered HTTP {status} instead of 200: {{"error": {{"message": "CUDA error"}}}}. '
        f"{client.REMEDIES[status]}"
    )


def test_a_status_that_nobody_expects(server: Server) -> None:
    server.answers["/props"] = (418, b"tea")
    with pytest.raises(NotProven, match="^/props answered HTTP 418 instead of 200: tea. Its log says why$"):
        Client(server.url, None).get("/props", 5)


def test_no_json(server: Server) -> None:
    server.answers["/props"] = b"<html>proxy</html>"
    with pytest.raises(NotProven, match="^/props did not answer JSON, found is <html>proxy</html>: is this really"):
        Client(server.url, None).get("/props", 5)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answers["/props"] = (302, b"")
    with pytest.raises(NotProven, match="HTTP 302"):
        Client(server.url, None).get("/props", 5)


def test_nobody_listens(server: Server) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(NotProven, match=f"^the server at {url} did not answer /props: "):
        Client(url, None).get("/props", 5)


def test_a_server_that_hangs(server: Server) -> None:
    server.answers["/props"] = Hang
    with pytest.raises(NotInTime, match="did not answer within 0 s. A GPU that hangs looks like this"):
        Client(server.url, None).get("/props", 0.2)


def test_a_server_that_crashes(server: Server) -> None:
    server.answers["/props"] = Drop
    with pytest.raises(NotProven, match="It has ended in the middle of it"):
        Client(server.url, None).get("/props", 5)


def test_every_request_has_a_connection_of_its_own(server: Server) -> None:
    """The server closes an idle one just when the next request is sent on it."""
    one = Client(server.url, None)
    assert one.get("/props", 5) == one.get("/props", 5)
    assert len(set(server.peers)) == 2


def events(server: Server, timeout: float = 5) -> list[dict[str, Any]]:
    return list(Client(server.url, None).stream(CHAT, {}, timeout))


def test_a_stream(server: Server) -> None:
    server.stream = (b": comment\n\n", piece(content="a"), b"\n", piece(content="b"))
    assert events(server) == [piece(content="a"), piece(content="b")]
    assert server.bodies(CHAT) == [{"stream": True}]


def test_a_stream_that_is_kept_alive_and_says_nothing(server: Server) -> None:
    server.stream = (piece(content="a"), Hang)
    with pytest.raises(NotInTime, match="did not answer within 0 s"):
        events(server, 0.3)


@pytest.mark.parametrize(
    "wrong", [{"error": {"message": "CUDA error"}}, b'error: {"message": "CUDA error"}\n\n'], ids=["data", "error"]
)
def test_a_stream_that_breaks_off_with_an_error(server: Server, wrong: Any) -> None:
    server.stream = (piece(content="a"), wrong)
    with pytest.raises(NotProven, match="broke off with an error: .*CUDA error"):
        events(server)


@pytest.mark.parametrize("wrong", [b"data: {\n\n", b"data: 7\n\n"])
def test_a_stream_of_another_shape(server: Server, wrong: bytes) -> None:
    server.stream = (wrong,)
    with pytest.raises(NotProven, match="an event of /v1/chat/completions has not the shape"):
        events(server)


def test_a_stream_that_is_refused(server: Server) -> None:
    server.answers[CHAT] = (503, {"error": "busy"})
    with pytest.raises(NotProven, match="answered HTTP 503 instead of 200"):
        events(server)


def test_a_stream_that_is_cut(server: Server) -> None:
    server.stream = (piece(content="a"), Drop)
    with pytest.raises(NotProven, match="broke off in the middle of the answer .*It has ended in the middle of it"):
        events(server)


def test_a_piece_is_given_when_it_comes(server: Server) -> None:
    server.stream = (piece(content="a"), Hang)
    pieces = Client(server.url, None).stream(CHAT, {}, 5)
    assert next(pieces) == piece(content="a")
