# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP range requests, and the meaning of their responses.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin

try:
    import requests
    from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]
    HTTPError = NewConnectionError = ReadTimeoutError = OSError  # type: ignore[assignment,misc]

from .source import Address, Rejected, Retry, Upstream, origin, redact

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECTS_MAX = 10
CONNECT_TIMEOUT = 15.0
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "gpufleet.llamacpp"}
ERROR_TEXT_MAX = 400
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class SourceChanged(Exception):
    """The source has another version of the file than at the start of the fetch."""


@dataclass
class Response:
    """A good response with an unread body: bytes [start, end) of ``total``. ``end`` and ``total`` may be unknown.

    ``ranged``: it is the range that was asked for, and not the whole file.
    """

    raw: Any
    start: int
    end: int | None
    total: int | None
    ranged: bool
    validator: str | None
    url: str
    headers: Mapping[str, str]

    def read(self, into: memoryview) -> int:
        """Fill ``into`` with the next bytes of the body. Returns their number, which is smaller at the body's end.

        This reads from the standard library's response. The readinto() of urllib3 allocates memory for each read: row
        ``plain`` took 17 % more processor time with it.
        """
        return int(self.raw._original_response.readinto(into))

    def close(self) -> None:
        """Keep the connection for the next request if the body was read to its end, else close it."""
        if not self.raw.closed:
            self.raw.close()
        self.raw.release_conn()

    def abort(self) -> None:
        """End the connection while another thread reads from it. The read then fails."""
        # Through a duplicate: shutdown() of a TLS socket would remove the TLS state that the other thread is using.
        try:
            connection = socket.socket(fileno=os.dup(self.raw.fileno()))
        except (OSError, AttributeError, ValueError):  # the response is closed already
            return
        with connection, contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def new_session() -> Any:
    """A requests.Session that sends our Authorization header. Without this it would send what ~/.netrc has instead."""
    session = requests.Session()
    session.auth = lambda request: request
    return session


def validator_of(headers: Mapping[str, str]) -> str | None:
    """The value for If-Range (RFC 9110, 13.1.5): a strong ETag, else Last-Modified, else None."""
    etag = headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified", "").strip() or None


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """The seconds that the server asks to wait: Retry-After, else ``t=`` of RateLimit, else None."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    if text:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
        except (TypeError, ValueError, IndexError):
            return None
    found = re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))
    return float(found.group(1)) if found else None


def content_range(text: str) -> tuple[int, int, int | None] | None:
    """(start, end exclusive, total or None) of a Content-Range header; None if it is not valid."""
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if not found:
        return None
    total = None if found.group(3) == "*" else int(found.group(3))
    return int(found.group(1)), int(found.group(2)) + 1, total


def cause_of(failure: BaseException) -> BaseException:
    """The first cause of an exception of requests or urllib3, whose own text repeats the whole URL."""
    while True:
        inner = [getattr(failure, "reason", None), *failure.args, failure.__cause__]
        if isinstance(failure, NewConnectionError):
            inner.append(failure.__context__)  # urllib3 1.26 has the cause of this one in its text only
        causes = [one for one in inner if isinstance(one, BaseException)]
        if not causes:
            return failure
        failure = causes[0]


def describe(failure: BaseException, timeout: float, url: str, headers: Mapping[str, str]) -> str:
    """Why a request failed, without secrets."""
    if isinstance(failure, requests.exceptions.ConnectTimeout):
        return f"no connection in {min(CONNECT_TIMEOUT, timeout):g} s"
    if isinstance(failure, (socket.timeout, ReadTimeoutError, requests.exceptions.ReadTimeout)):
        return f"not one byte in {timeout:g} s"
    cause = cause_of(failure)
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return redact(text or type(cause).__name__, url, headers)


class RangeClient:
    """The connections of one thread. ``ca_path``: a file or folder of certificates; ``timeout``: in seconds."""

    def __init__(self, ca_path: str | None, timeout: float) -> None:
        self._session = new_session()
        self._verify = ca_path or True
        self._timeout = timeout

    def close(self) -> None:
        self._session.close()

    def request(
        self,
        upstream: Upstream,
        start: int,
        end: int | None,
        total: int | None,
        if_range: str | None = None,
        address: Address | None = None,
    ) -> Response:
        """Ask for bytes [start, end) of a file of ``total`` bytes (None: unknown); ``end`` None: for the whole file.

        ``address``: where, if not at the upstream's current address. Raises Retry, Rejected or SourceChanged.
        """
        asked = address or upstream.address()
        url, headers = asked.url, asked.headers
        sent = dict(HEADERS)
        if end is not None:
            sent["Range"] = f"bytes={start}-{end - 1}"
            if if_range is not None:
                sent["If-Range"] = if_range
        for _hop in range(REDIRECTS_MAX + 1):
            answer = self._get(url, {**sent, **headers}, asked)
            target = self._session.get_redirect_target(answer)
            if target is None:
                break
            answer.close()
            target = urljoin(url, target)
            if origin(target) != origin(url):
                headers = {}
            url = target
        else:
            raise Rejected(f"more than {REDIRECTS_MAX} redirects", asked)
        try:
            response = self._check(answer, url, headers, asked, start, end, total, if_range)
        except BaseException:
            answer.close()
            raise
        upstream.settle(asked, url, headers)
        return response

    def read(self, response: Response, into: memoryview) -> int:
        """The same as Response.read, but raises Retry."""
        try:
            return response.read(into)
        except (HTTPError, HTTPException, OSError) as failure:
            raise Retry(describe(failure, self._timeout, response.url, response.headers)) from None

    def _get(self, url: str, headers: Mapping[str, str], asked: Address) -> Any:
        try:
            return self._session.get(
                url,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=(min(CONNECT_TIMEOUT, self._timeout), self._timeout),
                verify=self._verify,
            )
        except (requests.exceptions.RequestException, HTTPError, OSError, ValueError) as failure:
            text = describe(failure, self._timeout, url, headers)
            if isinstance(cause_of(failure), ssl.SSLCertVerificationError):
                text += (
                    "; if the certificate is right, set ca_path (in llamacpp_instance: image_ca_path) to its "
                    "certificate authority"
                )
                raise Rejected(text, asked) from None
            if isinstance(failure, ValueError):  # not a URL, or one that requests does not support
                raise Rejected(text, asked) from None
            raise Retry(text) from None

    def _check(
        self,
        answer: Any,
        url: str,
        headers: Mapping[str, str],
        asked: Address,
        start: int,
        end: int | None,
        total: int | None,
        if_range: str | None,
    ) -> Response:
        status, got = answer.status_code, answer.headers
        validator = validator_of(got)
        if status == 416 and got.get("Content-Range", "").strip() == "bytes */0" and start == 0 and total in (None, 0):
            return Response(answer.raw, 0, 0, 0, True, validator, url, headers)
        if status not in (200, 206):
            text = self._error_text(answer, url, headers)
            if status >= 500 or status in (408, 425, 429):
                raise Retry(text, retry_after(got) if status in (429, 503) else None)
            raise Rejected(text, asked, denied=status in (401, 403))
        if got.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise Rejected(f"answered with Content-Encoding {got['Content-Encoding']}; expected identity", asked)
        if got.get("Content-Type", "").lower().startswith("text/html"):
            raise Retry("answered with an HTML page instead of the file (a login or error page?)")
        if if_range is not None and (validator or if_range) != if_range:
            raise SourceChanged(f"the file changed at its source during the fetch: {if_range} became {validator}")
        if status == 200:
            length = got.get("Content-Length", "")
            size = int(length) if length.isdigit() else None
            if None not in (size, total) and size != total:
                raise Rejected(_wrong_size(size, total), asked)
            return Response(answer.raw, 0, size, size, False, validator, url, headers)
        found = content_range(got.get("Content-Range", ""))
        if found is None or end is None:
            raise Retry(f"answered 206 with Content-Range {got.get('Content-Range')!r} to a request for {start}-{end}")
        if total is not None and found[2] not in (None, total):
            raise Rejected(_wrong_size(found[2], total), asked)
        if found[0] != start or not start < found[1] <= end:
            raise Retry(f"answered with bytes {found[0]}-{found[1] - 1}; expected {start}-{end - 1}")
        return Response(answer.raw, start, found[1], found[2], True, validator, url, headers)

    def _error_text(self, answer: Any, url: str, headers: Mapping[str, str]) -> str:
        """The status, and the start of what the server says about it."""
        text = f"HTTP {answer.status_code} {answer.reason or ''}".strip()
        message = answer.headers.get("X-Error-Message", "")
        if not message:
            try:
                message = answer.raw.read(16 * ERROR_TEXT_MAX, decode_content=True).decode("utf-8", "replace")
            except (HTTPError, OSError):
                message = ""
            if "html" in answer.headers.get("Content-Type", "").lower() or "<html" in message.lower():
                message = re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>", " ", message)
        message = re.sub(r"\s+", " ", redact(message, url, headers)).strip()[:ERROR_TEXT_MAX]
        return f"{text}: {message}" if message else text


def _wrong_size(size: int | None, expected: int | None) -> str:
    return f"has {size} bytes; expected {expected}. Is it another file or revision?"
