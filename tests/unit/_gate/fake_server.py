# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that answers as llama-server does (format of build 11669), except where a test changes it."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = {
    "path": "/data/models/a.gguf",
    "size": 98362432,
    "tensor_bytes": 96576768,
    "parameters": 134515008,
    "context_length": 8192,
}
ARGUMENTS = (
    *("-m", "/models/a.gguf", "-ngl", "99", "-c", "65536", "--port", "4403", "--host", "0.0.0.0", "-t", "32"),
    *("--jinja", "--fit", "on", "--temp", "1.0", "--top-p", "0.95", "--min-p", "0.01", "--repeat-penalty", "1.0"),
)
PROPS: dict[str, Any] = {
    "default_generation_settings": {
        # A float32 as a JSON writer prints it.
        "params": {
            "temperature": 1.0,
            "top_k": 40,
            "top_p": 0.949999988079071,
            "min_p": 0.009999999776482582,
            "repeat_penalty": 1.0,
            "seed": 4294967295,
        },
        "n_ctx": 8192,
    },
    "total_slots": 4,
    "model_alias": "/models/a.gguf",
    "model_path": "/models/a.gguf",
    "endpoint_slots": True,
    "build_info": "b11669-Debian",
}
MODELS = {
    "data": [
        {
            "id": "/models/a.gguf",
            "aliases": ["/models/a.gguf"],
            "meta": {"n_ctx": 8192, "n_ctx_train": 8192, "n_params": 134515008, "size": 96576768},
        }
    ]
}
ANSWER = {
    "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": " Paris. "}}],
    "usage": {"completion_tokens": 3, "prompt_tokens": 37},
    "timings": {"prompt_per_second": 96.28, "predicted_per_second": 123.456},
}


def message(content: Any, tokens: int = 3, **more: Any) -> dict[str, Any]:
    """A completion with another message."""
    answer = changed(ANSWER, "choices", 0, "message", to={"content": content, **more})
    return dict(changed(answer, "usage", "completion_tokens", to=tokens))


def piece(**delta: Any) -> dict[str, Any]:
    """One event of a stream."""
    return {"choices": [{"finish_reason": None, "index": 0, "delta": delta}]}


STREAM: tuple[Any, ...] = (
    piece(role="assistant", content=None),
    piece(content="Par"),
    piece(content="is."),
    {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}]},
    {"choices": [], "usage": {"completion_tokens": 2}, "timings": {"predicted_per_second": 200.04}},
)


def idle(number: int) -> dict[str, Any]:
    """An idle slot."""
    return {"id": number, "is_processing": False, "id_task": 7}


class Server(ThreadingHTTPServer):
    """``answers`` by path: a value, (status, value), bytes, or a function of the request's body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.key: str | None = None
        self.asked: list[tuple[str, Any]] = []
        self.peers: list[int] = []
        self.stream: tuple[Any, ...] = STREAM
        self.end = threading.Event()
        self.answers: dict[str, Any] = {
            "/health": {"status": "ok"},
            "/props": copy.deepcopy(PROPS),
            "/v1/models": copy.deepcopy(MODELS),
            "/slots": [idle(number) for number in range(4)],
            "/metrics": (501, {"error": {"code": 501}}),
            "/tokenize": {"tokens": [5, 6, 7]},
            "/v1/chat/completions": lambda body: self.stream if body.get("stream") else ANSWER,
            "/v1/completions": plain,
        }

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """The bodies of the requests to a path."""
        return [body for asked, body in self.asked if asked == path]


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """The reply of /v1/completions: a text, and the number of tokens in the prompt."""
    return {
        "choices": [{"text": " and", "index": 0}],
        "usage": {"completion_tokens": body["max_tokens"], "prompt_tokens": len(body["prompt"])},
        "timings": {"prompt_per_second": 1234.56},
    }


class Hang:
    """Instead of an answer: no reply until the test is over; in a stream, the comments that keep it alive."""


class Drop:
    """Instead of an answer: the connection is closed, as by a server that crashes."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: Any) -> None:
        self.server.asked.append((self.path, body))
        self.server.peers.append(self.client_address[1])
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self.reply(401, {"error": {"message": "Invalid API Key", "type": "authentication_error"}})
        value = self.server.answers.get(self.path, (404, {"error": {"message": "File Not Found"}}))
        if callable(value) and not isinstance(value, type):
            value = value(body)
        if value is Hang:
            self.server.end.wait(30)
        elif value is Drop:
            self.close_connection = True
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], int):
            return self.reply(*value)
        elif isinstance(value, tuple):
            return self.events(value)
        else:
            return self.reply(200, value)
        return None

    def reply(self, status: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def events(self, values: tuple[Any, ...]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may close the connection before the end
            for value in values:
                if value is Drop:
                    self.close_connection = True
                    return
                if value is Hang:
                    while not self.server.end.wait(0.05):
                        self.chunk(b":\n\n")
                elif isinstance(value, bytes):
                    self.chunk(value)
                else:
                    self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server for the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.end.set()
            server.shutdown()
            thread.join()


def changed(value: Any, *path: Any, to: Any) -> Any:
    """A copy of a JSON value with another value at ``path``."""
    new = copy.deepcopy(value)
    inner = new
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return new
