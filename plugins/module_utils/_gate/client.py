# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP requests to a llama-server; whatever goes wrong is a NotProven with its remedy.

Private to gpufleet.llamacpp; may change at any time. HTTP API: llama.cpp tools/server/README.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

try:
    import requests
except ImportError:  # the module reports it with missing_required_lib before it calls anything here
    requests = None  # type: ignore[assignment]

from .._result import OperatorError, Problem

# What Python raises when a JSON value does not have the expected format.
WRONG_FORMAT = (AttributeError, IndexError, KeyError, TypeError, ValueError)
SHOWN = 300
# Seconds for a reply that does not need the model.
HTTP_TIMEOUT = 60

# By HTTP status.
REMEDIES = {
    400: "The server rejected the request: its build is not compatible with this collection, or its context is too "
    "small. Try a newer image or a larger context_size.",
    401: "The server does not accept the first key in api_key_file. Write one key per line, without blanks around it.",
    404: "This build of llama-server does not have this endpoint. Use a newer image.",
    500: "The server failed internally, as it does after a GPU error. Read its log.",
    503: "The server is not ready for requests, although its runner has seen it ready. Read its log.",
}
READ_LOG = "Read the log of the server."
HANGS = (
    "A GPU hang looks like this, and /health does not show it: check nvidia-smi and the kernel log for Xid. If the "
    "server is only slow, ask less of it (gate_prompt_tokens, gate)."
)
GONE = "The server ended, or was stopped, during the request. Read its log."
NOT_LLAMA_SERVER = "Check that the program that listens on this port is llama-server."


class NotProven(OperatorError):
    """The server runs, and is not what was asked for or does not work."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class NotInTime(NotProven):
    """A reply did not start, or did not end, in time."""


def wrong_format(what: str, value: Any) -> NotProven:
    """The reply is JSON, but not in llama-server's format."""
    text = f"{what} is not in the format of llama-server: {str(value)[:SHOWN]}"
    return NotProven(Problem("", text, NOT_LLAMA_SERVER))


class ApiClient:
    """The HTTP API of the server at ``url``, for any number of threads. Every method raises NotProven."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self.key = key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, timeout: float) -> Any:
        """The JSON value of a GET."""
        return self._value(path, self._send("GET", path, None, timeout))

    def post(self, path: str, body: Mapping[str, Any], timeout: float) -> Any:
        """The JSON value of a POST."""
        return self._value(path, self._send("POST", path, body, timeout))

    def status(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> int:
        """The HTTP status of a request."""
        return int(self._send(method, path, body, timeout).status_code)

    def stream(self, path: str, body: Mapping[str, Any], timeout: float) -> Iterator[dict[str, Any]]:
        """The events of a streamed reply, which has to be complete within ``timeout`` seconds.

        A server whose GPU hangs keeps the connection alive with comments (--sse-ping-interval), so a timeout of the
        socket is not enough.
        """
        end = time.monotonic() + timeout
        reply = self._send("POST", path, {**body, "stream": True}, timeout, stream=True)
        try:
            if reply.status_code != 200:
                self._value(path, reply)
            # Without a chunk size, each event is read as soon as it arrives.
            for line in reply.iter_lines(chunk_size=None):
                if time.monotonic() > end:
                    raise self._too_late(path, timeout)
                event = _event(path, line.decode("utf-8", "replace"))
                if event is not None:
                    yield event
        except requests.Timeout as error:
            raise self._too_late(path, timeout) from error
        except requests.RequestException as error:
            raise NotProven(Problem("", f"The reply of {self.url}{path} was cut off: {error}", GONE)) from error
        finally:
            reply.close()

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float, stream: bool = False
    ) -> requests.Response:
        # A connection for each request: the server closes an idle one after five seconds (cpp-httplib), and a request
        # that is sent at that moment would fail as if the server had ended.
        session = requests.Session()
        # The server is on this host: a site's proxy must not get the request.
        session.trust_env = False
        headers = {**self._headers, "Connection": "close"}
        try:
            return session.request(
                method,
                f"{self.url}{path}",
                json=body,
                headers=headers,
                timeout=timeout,
                stream=stream,
                allow_redirects=False,
            )
        except requests.Timeout as error:
            raise self._too_late(path, timeout) from error
        except requests.RequestException as error:
            raise NotProven(Problem("", f"{self.url}{path} did not answer: {error}", GONE)) from error

    def _too_late(self, path: str, timeout: float) -> NotInTime:
        return NotInTime(Problem("", f"{self.url}{path} did not answer within {timeout:.0f} s", HANGS))

    def _value(self, path: str, reply: requests.Response) -> Any:
        text = reply.text[:SHOWN].strip()
        if reply.status_code != 200:
            remedy = REMEDIES.get(reply.status_code, READ_LOG)
            raise NotProven(Problem("", f"{path} returned HTTP {reply.status_code} instead of 200: {text}", remedy))
        try:
            return reply.json()
        except ValueError as error:
            raise NotProven(Problem("", f"{path} did not return JSON: {text}", NOT_LLAMA_SERVER)) from error


def _event(path: str, line: str) -> dict[str, Any] | None:
    """The event in a line of a stream; None for a comment, a blank line and the end. Raises NotProven for an error."""
    field, dummy, text = line.partition(":")
    if field not in ("data", "error") or text.strip() == "[DONE]":
        return None
    try:
        event = json.loads(text)
    except ValueError as error:
        raise wrong_format(f"An event of {path}", line) from error
    if not isinstance(event, dict):
        raise wrong_format(f"An event of {path}", line)
    if field == "error" or "error" in event:
        error_text = f"{path} ended its reply with an error: {text.strip()[:SHOWN]}"
        raise NotProven(Problem("", error_text, REMEDIES[500]))
    return event
