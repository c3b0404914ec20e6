# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a llama-server over HTTP: a value, or a sentence that says what came instead and what to do.

Private to gpufleet.llamacpp; may change at any time. HTTP API: llama.cpp tools/server/README.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

try:
    import requests
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]

# What Python says when a JSON value has another shape than is expected.
WRONG_SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
SHOWN = 300

# What a status means that is not 200, and what to do.
REMEDIES = {
    400: "The server does not take the question: its build and this collection do not fit, or its context is too small",
    401: "It does not take the first key of api_key_file: let every key stand in a line of its own, without blanks",
    404: "This build of llama-server does not know the question: use a newer image",
    500: "It fails inside, as it does after a GPU error: its log says why",
    503: "It is not ready for requests, though its runner has seen it ready: its log says why",
}
HANGS = (
    "A GPU that hangs looks like this, and /health does not show it: nvidia-smi and the kernel's log (Xid) tell. If "
    "the server is only slow, ask less of it (gate_prompt_tokens, gate)"
)
GONE = "It has ended in the middle of it, or was ended: its log says why"


class NotProven(Exception):
    """The server is up and does not do what it should; the message is all problems, each a sentence without its dot."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__(".\n".join(self.problems))


class NotInTime(NotProven):
    """The answer did not come, or did not end, in time."""


def wrong_shape(what: str, value: Any) -> NotProven:
    """What the server gave is JSON, and not what llama-server gives."""
    return NotProven(
        f"{what} has not the shape that llama-server gives, found is {str(value)[:SHOWN]}: is this really llama-server?"
    )


class Client:
    """A way to the server at ``url``, for any number of threads. Every method raises NotProven in words."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, timeout: float) -> Any:
        """The JSON value of a GET."""
        return self._value(path, self._send("GET", path, None, timeout))

    def post(self, path: str, body: Mapping[str, Any], timeout: float) -> Any:
        """The JSON value of a POST."""
        return self._value(path, self._send("POST", path, body, timeout))

    def status(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> int:
        """The HTTP status, whatever it is."""
        return int(self._send(method, path, body, timeout).status_code)

    def stream(self, path: str, body: Mapping[str, Any], timeout: float) -> Iterator[dict[str, Any]]:
        """The events of an answer that comes in pieces.

        A server whose GPU hangs keeps sending comments, so that the connection lives (--sse-ping-interval); what ends
        the waiting is the clock.
        """
        end = time.monotonic() + timeout
        answer = self._send("POST", path, {**body, "stream": True}, timeout, stream=True)
        try:
            if answer.status_code != 200:
                self._value(path, answer)
            # Without a size, each piece is given as soon as it has come (llama-server sends them chunked).
            for line in answer.iter_lines(chunk_size=None):
                if time.monotonic() > end:
                    raise self._silent(path, timeout)
                event = _event(path, line.decode("utf-8", "replace"))
                if event is not None:
                    yield event
        except requests.Timeout as error:
            raise self._silent(path, timeout) from error
        except requests.RequestException as error:
            raise NotProven(f"{path} at {self.url} broke off in the middle of the answer ({error}). {GONE}") from error
        finally:
            answer.close()

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float, stream: bool = False
    ) -> requests.Response:
        # One connection for one request: the server closes one that waits for the next request after five seconds
        # (cpp-httplib), and a request that is just being sent on it would see a server that has gone.
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
            raise self._silent(path, timeout) from error
        except requests.RequestException as error:
            raise NotProven(f"the server at {self.url} did not answer {path}: {error}. {GONE}") from error

    def _silent(self, path: str, timeout: float) -> NotInTime:
        return NotInTime(f"{path} at {self.url} did not answer within {timeout:.0f} s. {HANGS}")

    def _value(self, path: str, answer: requests.Response) -> Any:
        text = answer.text[:SHOWN].strip()
        if answer.status_code != 200:
            remedy = REMEDIES.get(answer.status_code, "Its log says why")
            raise NotProven(f"{path} answered HTTP {answer.status_code} instead of 200: {text}. {remedy}")
        try:
            return answer.json()
        except ValueError as error:
            raise NotProven(f"{path} did not answer JSON, found is {text}: is this really llama-server?") from error


def _event(path: str, line: str) -> dict[str, Any] | None:
    """The event in a line of a stream; None for a comment, a blank line and the end. Raises NotProven for an error."""
    field, dummy, text = line.partition(":")
    if field not in ("data", "error") or text.strip() == "[DONE]":
        return None
    try:
        event = json.loads(text)
    except ValueError as error:
        raise wrong_shape(f"an event of {path}", line) from error
    if not isinstance(event, dict):
        raise wrong_shape(f"an event of {path}", line)
    if field == "error" or "error" in event:
        raise NotProven(f"{path} broke off with an error: {text.strip()[:SHOWN]}. {REMEDIES[500]}")
    return event
