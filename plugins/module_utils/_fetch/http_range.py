# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP range request, and what its answer means.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import email.utils
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
    from urllib3.exceptions import HTTPError, ReadTimeoutError
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]
    HTTPError = ReadTimeoutError = OSError  # type: ignore[assignment,misc]

from .source import Address, FetchError, Place, origin, redact

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECTS_MAX = 10
CONNECT_TIMEOUT = 15.0
ERROR_TEXT = 400
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Retry(Exception):
    """Worth asking again; ``after`` is the server's own wish in seconds, if it told one."""

    def __init__(self, words: str, after: float | None = None) -> None:
        super().__init__(words)
        self.after = after


class Refused(Exception):
    """Asking the same again is of no use; ``denied``: a fresh signature or token may help."""

    def __init__(self, words: str, address: Address, denied: bool = False) -> None:
        super().__init__(words)
        self.address = address
        self.denied = denied


class Changed(Exception):
    """The file at the source is not the one that we began with."""


@dataclass
class Answer:
    """A good answer whose body is still to be read: bytes [start, end) of ``total``; ``end`` is None if nobody said."""

    response: Any
    start: int
    end: int | None
    total: int | None
    ranged: bool
    validator: str | None
    url: str
    headers: Mapping[str, str]
    _socket: Any = None

    @property
    def body(self) -> Any:
        """The standard library's response inside that of requests.

        It reads into memory that we have; urllib3 makes new memory for each read, which may cost more than the rest.
        """
        return self.response.raw._original_response

    def fill(self, into: memoryview) -> int:
        """Read the next bytes of the body into all of ``into`` and return their number, fewer at the body's end.

        TLS gives 16 KiB at a time. Each of those costs less when it is asked of the socket itself, and not
        through the buffer and the file that the standard library puts around it.
        """
        body = self.body
        if body.chunked or body.length is None or body.fp is None:
            return int(body.readinto(into))
        count = 0
        if self._socket is None:
            # What came together with the header lies in the buffer, which is empty when just that was taken out.
            waiting = len(body.fp.peek())
            count = int(body.readinto(into[:waiting]))
            if count == waiting and body.fp is not None:
                self._socket = getattr(body.fp.raw, "_sock", None)
            if self._socket is None:
                return count
        wanted = count + min(len(into) - count, body.length)
        before = count
        tls = isinstance(self._socket, ssl.SSLSocket)
        while count < wanted:
            rest = into[count:wanted]
            got = self._socket.read(wanted - count, rest) if tls else self._socket.recv_into(rest)
            if not got:
                break
            count += got
        body.length -= count - before
        if not body.length:
            body.readinto(into[:1])  # nothing is left to be read; it notices that, and gives the connection back
        return count

    def close(self) -> None:
        self.response.close()

    def cut(self) -> None:
        """End the connection under a read of another thread, which then fails."""
        with contextlib.suppress(OSError, AttributeError):  # it is over already
            connection = self.body.fp.raw._sock
            # Not its own shutdown: one of TLS takes the decryption away from under that thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def validator_of(headers: Mapping[str, str]) -> str | None:
    """What If-Range may hold (RFC 9110, 13.1.5): a strong ETag, else the date of the last change."""
    etag = headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified", "").strip() or None


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that the server asks us to wait: Retry-After (seconds or date), else ``t=`` of RateLimit, else None."""
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
    """(start, end exclusive, total or None) of a Content-Range header; None if it is none."""
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if not found:
        return None
    total = None if found.group(3) == "*" else int(found.group(3))
    return int(found.group(1)), int(found.group(2)) + 1, total


def cause_of(broken: BaseException, url: str, secrets: Mapping[str, str]) -> str:
    """The cause inside an exception of requests or urllib3, whose own text has the whole URL in it, and no secret."""
    cause: BaseException = broken
    while True:
        inner = getattr(cause, "reason", None) or next(iter(cause.args), None)
        if not isinstance(inner, BaseException):
            break
        cause = inner
    text = redact(str(cause) or type(cause).__name__, url, secrets)
    return re.sub(r"^.*?>: |^\(?'?Connection aborted\.'?, ", "", text)


def _amount(count: int | None) -> str:
    return "an unknown number of bytes" if count is None else f"{count} bytes"


def failed(place: Place, failure: Retry, began: float, generation: int, spare: bool) -> None:
    """Count a failure that may pass; where the server asked for no patience, its redirects may lead elsewhere now."""
    if failure.after is None:
        place.forget(generation)
    place.failed(str(failure), began, failure.after, spare)


def refused(place: Place, failure: Refused) -> Address | None:
    """A fresh address to ask once more at; where there is none, or that was one, the place is dropped."""
    try:
        address = place.renew(failure.address, failure.denied)
    except FetchError as unresolved:
        place.drop(f"{failure}; and no fresh address: {unresolved}")
        return None
    if address is None:
        place.drop(str(failure))
    return address


class Client:
    """The connections of one thread; ``ca_path`` is a bundle or folder of certificates, ``timeout`` in seconds."""

    def __init__(self, ca_path: str | None, timeout: float) -> None:
        self._session = requests.Session()
        # Without this, requests would replace our Authorization by what ~/.netrc has for the host.
        self._session.auth = lambda request: request
        self._verify = ca_path or True
        self._timeout = timeout

    def close(self) -> None:
        self._session.close()

    def ask(
        self,
        place: Place,
        start: int,
        end: int | None,
        total: int | None,
        if_range: str | None = None,
        address: Address | None = None,
    ) -> Answer:
        """Request bytes [start, end) of a file of ``total`` bytes (None: not known yet); ``end`` None: the whole file.

        At ``address``, else where the place says. Raises Retry, Refused or Changed. An answer to the whole file where a
        range was asked is returned with ``ranged`` False.
        """
        try:
            asked = address or place.address()
        except FetchError as unresolved:
            nowhere = Address(place.source.url, {}, place.generation, True)
            raise Refused(f"no fresh address: {unresolved}", nowhere) from None
        url, headers = asked.url, asked.headers
        send = {"Accept-Encoding": "identity", "User-Agent": "gpufleet.llamacpp"}
        if end is not None:
            send["Range"] = f"bytes={start}-{end - 1}"
            if if_range is not None:
                send["If-Range"] = if_range
        for _hop in range(REDIRECTS_MAX + 1):
            response = self._get(url, {**send, **headers}, asked)
            target = self._session.get_redirect_target(response)
            if target is None:
                break
            response.close()
            target = urljoin(url, target)
            if origin(target) != origin(url):
                headers = {}
            url = target
        else:
            raise Refused(f"more than {REDIRECTS_MAX} redirects", asked)
        try:
            answer = self._meaning(response, url, headers, asked, start, end, total, if_range)
        except BaseException:
            response.close()
            raise
        place.settle(asked, url, headers)
        return answer

    def read(self, answer: Answer, into: memoryview) -> int:
        """As Answer.fill; raises Retry."""
        try:
            return answer.fill(into)
        except (HTTPError, HTTPException, OSError) as broken:
            raise Retry(self._words(broken, answer.url, answer.headers)) from None

    def finish(self, answer: Answer) -> None:
        """Let the connection serve the next request, if nothing of the body is left."""
        if answer.body.isclosed():
            answer.response.raw.release_conn()

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
        except requests.exceptions.SSLError as broken:
            words = self._words(broken, url, headers)
            if "CERTIFICATE_VERIFY_FAILED" in words:
                raise Refused(f"{words}; if the certificate is right, give its authority as ca_path", asked) from None
            raise Retry(words) from None
        except ValueError as broken:  # no URL, or of a scheme that requests does not know
            raise Refused(self._words(broken, url, headers), asked) from None
        except (requests.exceptions.RequestException, HTTPError, OSError) as broken:
            raise Retry(self._words(broken, url, headers)) from None

    def _words(self, broken: BaseException, url: str, headers: Mapping[str, str]) -> str:
        if isinstance(broken, (socket.timeout, ReadTimeoutError, requests.exceptions.ReadTimeout)):
            return f"not one byte in {self._timeout:g} s"
        return cause_of(broken, url, headers)

    def _meaning(
        self,
        response: Any,
        url: str,
        headers: Mapping[str, str],
        asked: Address,
        start: int,
        end: int | None,
        total: int | None,
        if_range: str | None,
    ) -> Answer:
        status, got = response.status_code, response.headers
        if status == 416 and got.get("Content-Range", "").strip() == "bytes */0" and start == 0 and total in (None, 0):
            return Answer(response, 0, 0, 0, True, validator_of(got), url, headers)
        if status not in (200, 206):
            words = self._refusal(response, url, headers)
            if status >= 500 or status in (408, 425, 429):
                raise Retry(words, retry_after(got) if status in (429, 503) else None)
            raise Refused(words, asked, denied=status in (401, 403))
        if got.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            words = f"answered with Content-Encoding {got['Content-Encoding']} where identity was asked"
            raise Refused(words, asked)
        if got.get("Content-Type", "").lower().startswith("text/html"):
            raise Retry("answered with an HTML page instead of the file (a login or error page?)")
        validator = validator_of(got)
        if if_range is not None and (validator or if_range) != if_range:
            raise Changed(f"the file changed at its source while it was fetched: {if_range} became {validator}")
        if status == 200:
            length = got.get("Content-Length", "")
            size = int(length) if length.isdigit() else None
            if None not in (size, total) and size != total:
                raise Refused(f"has {_amount(size)} where {total} are expected; another file or revision?", asked)
            return Answer(response, 0, size, size, False, validator, url, headers)
        found = content_range(got.get("Content-Range", ""))
        if found is None or end is None:
            raise Retry(f"answered 206 with Content-Range {got.get('Content-Range')!r} to a request for {start}-{end}")
        if total is not None and found[2] not in (None, total):
            raise Refused(f"has {_amount(found[2])} where {total} are expected; another file or revision?", asked)
        if found[0] != start or not start < found[1] <= end:
            raise Retry(f"answered with bytes {found[0]}-{found[1] - 1} where {start}-{end - 1} were asked")
        return Answer(response, start, found[1], found[2], True, validator, url, headers)

    def _refusal(self, response: Any, url: str, headers: Mapping[str, str]) -> str:
        """The status and the beginning of what the server says about it."""
        words = f"HTTP {response.status_code} {response.reason or ''}".strip()
        said = response.headers.get("X-Error-Message", "")
        if not said:
            try:
                said = response.raw.read(16 * ERROR_TEXT, decode_content=True).decode("utf-8", "replace")
            except (HTTPError, OSError):
                said = ""
            if "html" in response.headers.get("Content-Type", "").lower() or "<html" in said.lower():
                said = re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>", " ", said)
        said = re.sub(r"\s+", " ", redact(said, url, headers)).strip()[:ERROR_TEXT]
        return f"{words}: {said}" if said else words
