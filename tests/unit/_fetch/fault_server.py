# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP server on 127.0.0.1 that serves one file in ranges, with configurable faults."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass
class Request:
    """A request for [start, end) of the file, or for all of it if it has no range."""

    path: str
    headers: Mapping[str, str]
    start: int
    end: int
    ranged: bool


@dataclass
class Reply:
    """A response. ``length``: Content-Length, if not that of the body; ``pause``: seconds before each block."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = None
    pause: float = 0.0
    block: int = 65536


# A fault gets the request and the right reply. It returns what is sent instead, or None to send the right reply.
Fault = Callable[[Request, Reply], "Reply | None"]


@dataclass
class Faults:
    """The faults of a server. Each changes at most ``times`` replies."""

    waiting: list[tuple[Fault, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault, times: int = 1_000_000) -> None:
        with self.lock:
            self.waiting.append((fault, times))

    def apply(self, request: Request, reply: Reply) -> Reply:
        with self.lock:
            for number, (fault, times) in enumerate(self.waiting):
                changed = fault(request, reply) if times else None
                if changed is not None:
                    self.waiting[number] = (fault, times - 1)
                    return changed
        return reply


def data_only(fault: Fault) -> Fault:
    """``fault`` for all requests but that for the first byte, so that the fetch starts."""
    return lambda request, reply: None if request.ranged and request.end == 1 else fault(request, reply)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, reply: Reply(code, named, body)


def redirect(target: Callable[[], str], code: int = 302) -> Fault:
    return lambda request, reply: Reply(code, {"Location": target()}, b"a page about the redirect")


def header(name: str, value: str | None) -> Fault:
    """The right reply with another value of one header, or without it."""

    def change(request: Request, reply: Reply) -> Reply:
        reply.headers.pop(name, None)
        if value is not None:
            reply.headers[name] = value
        return reply

    return change


def short(count: int) -> Fault:
    """The connection ends after ``count`` bytes of a longer body."""
    return lambda request, reply: Reply(reply.status, reply.headers, reply.body[:count], length=len(reply.body))


def stalled(seconds: float) -> Fault:
    """The body does not begin for ``seconds``."""
    return lambda request, reply: Reply(reply.status, reply.headers, reply.body, pause=seconds)


def trickling(seconds: float) -> Fault:
    """One byte in this many seconds: there is no long silence, and almost no data."""
    return lambda request, reply: Reply(reply.status, reply.headers, reply.body, pause=seconds, block=1)


def flipped(offset: int) -> Fault:
    """One byte of the file is wrong."""

    def change(request: Request, reply: Reply) -> Reply | None:
        at = offset - (request.start if reply.status == 206 else 0)
        if not 0 <= at < len(reply.body):
            return None
        body = bytearray(reply.body)
        body[at] ^= 1
        return Reply(reply.status, reply.headers, bytes(body))

    return change


def shifted(by: int) -> Fault:
    """Other bytes than requested, with a Content-Range that says so."""

    def change(request: Request, reply: Reply) -> Reply:
        size = reply.headers["Content-Range"].rpartition("/")[2]
        named = {"Content-Range": f"bytes {request.start + by}-{request.start + by + len(reply.body) - 1}/{size}"}
        return Reply(206, {**reply.headers, **named}, reply.body[by:] + reply.body[:by])

    return change


class FaultServer:
    """Serves ``content`` under every path inside a with block. ``requests`` has all requests."""

    def __init__(
        self,
        content: bytes,
        *,
        ranges: bool = True,
        etag: str | None = '"one"',
        rate: float | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.content = content
        self.tls = tls
        self.ranges = ranges
        self.etag = etag
        self.rate = rate
        self.faults = Faults()
        self.requests: list[Request] = []
        self.sent = 0
        self.connections = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/file"

    @property
    def data_requests(self) -> list[Request]:
        return [one for one in self.requests if not (one.ranged and one.end == 1)]

    def __enter__(self) -> FaultServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                with outer._lock:
                    outer.connections += 1
                super().setup()

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *dummy: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *dummy: object) -> None:
                pass  # the tests close connections early

        self._server = Server(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _right(self, request: Request, if_range: str | None) -> Reply:
        headers = {"Content-Type": "application/octet-stream"}
        if self.etag is not None:
            headers["ETag"] = self.etag
        size = len(self.content)
        if request.ranged and self.ranges and if_range in (None, self.etag):
            if request.start >= size:
                return Reply(416, {**headers, "Content-Range": f"bytes */{size}"}, b"")
            end = min(request.end, size)
            headers["Content-Range"] = f"bytes {request.start}-{end - 1}/{size}"
            return Reply(206, headers, self.content[request.start : end])
        return Reply(200, headers, self.content)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(self.content))
        request = Request(handler.path, dict(handler.headers.items()), start, end, found is not None)
        with self._lock:
            self.requests.append(request)
        reply = self.faults.apply(request, self._right(request, handler.headers.get("If-Range")))
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        for at in range(0, len(reply.body), reply.block):
            time.sleep(reply.pause)
            block = reply.body[at : at + reply.block]
            if self.rate:
                time.sleep(len(block) / self.rate)
            handler.wfile.write(block)
            with self._lock:
                self.sent += len(block)
        if length != len(reply.body):
            handler.close_connection = True
