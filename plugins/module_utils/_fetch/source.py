# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of a file: their current addresses, their credentials, their failures and their speed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from .._result import OperatorError

# Seconds. The pause after a failure is BACKOFF, then twice that, and so on up to BACKOFF_MAX.
BACKOFF = 0.5
BACKOFF_MAX = 30.0
# The longest pause that a server may ask for (Retry-After).
RETRY_AFTER_MAX = 300.0
# Failures in a row without one new byte before a source is dropped: one that never sent a byte, one that did, and one
# that another source can replace.
TRIES_UNPROVEN = 5
TRIES_PROVEN = 12
TRIES_SPARE = 3


class FetchError(OperatorError):
    """A file cannot be fetched. The message holds no secret."""


@dataclass(frozen=True)
class Source:
    """Where a file is.

    ``headers`` are sent to the origin (scheme, host, port) of ``url`` only. ``resolve`` returns a new (url, headers)
    when the server answers 401 or 403, as it does for an expired signature. It may raise FetchError.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    resolve: Callable[[], tuple[str, Mapping[str, str]]] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return public_address(self.url)


@dataclass(frozen=True)
class Address:
    """Where to send a request, and with which headers.

    ``generation`` counts the changes of an upstream's address. ``own``: no other request uses this address.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    generation: int
    own: bool


class Retry(Exception):
    """The request failed and may be sent again. ``after``: the seconds that the server asks to wait, if it does."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class Rejected(Exception):
    """The same request to the same address would fail again. ``denied``: because of its signature or token."""

    def __init__(self, text: str, address: Address, denied: bool = False) -> None:
        super().__init__(text)
        self.address = address
        self.denied = denied


def public_address(url: str) -> str:
    """``url`` without what may be secret: user, password, query (signatures, tokens) and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: credentials are valid for these."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(scheme)


def redact(text: str, url: str, headers: Mapping[str, str]) -> str:
    """``text`` without the secrets of a request, which an error page or an exception may repeat."""
    parts = urlsplit(url)
    secrets = {parts.query, unquote(parts.query)}
    for pair in parts.query.split("&"):
        value = pair.partition("=")[2]
        secrets |= {value, unquote(value)}
    for name, value in headers.items():
        if name.lower() not in ("range", "accept-encoding", "if-range", "user-agent"):
            # A token from a file may end with a line break, which an exception shows in another form.
            secrets |= {value.strip(), value.strip().rpartition(" ")[2]}
    for secret in sorted((one for one in secrets if len(one) >= 6), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"//[^/@\s]+@", "//", text)
    return re.sub(r"\?[\w.%~+-]+=[^\s'\")<]*", "", text)


def _split_credentials(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The URL without user and password, and the headers with them: a header is sent to its own origin only."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, dict(headers)
    name, dummy, password = user.partition(":")
    pair = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {pair}", **headers}


class Upstream:
    """A Source while several threads fetch from it. ``mirror``: it is not the first source of the file."""

    def __init__(self, source: Source, mirror: bool) -> None:
        self.source = source
        self.mirror = mirror
        self.dropped: str | None = None  # why it is used no more
        self.proven = False
        self.active = 0  # requests
        self.bytes = 0
        self.busy = 0.0  # seconds, summed over the connections
        self.not_before = 0.0
        self.generation = 0
        self._failures = 0
        self._failed_at = 0.0
        self._lock = threading.Lock()
        self._first = _split_credentials(source.url, source.headers)
        self._current = self._first

    def __str__(self) -> str:
        return str(self.source)

    @property
    def rate(self) -> float:
        """Bytes per second of one connection."""
        return self.bytes / self.busy if self.busy > 0 else 0.0

    def address(self) -> Address:
        """The address for the next request."""
        with self._lock:
            return Address(*self._current, self.generation, False)

    def _own_address(self) -> Address:
        url, headers = self._first
        if self.source.resolve is not None:
            url, headers = _split_credentials(*self.source.resolve())
        return Address(url, headers, self.generation, True)

    def settle(self, asked: Address, url: str, headers: Mapping[str, str]) -> None:
        """A request to ``asked`` ended well at ``url``: the next requests go there directly."""
        with self._lock:
            if asked.generation == self.generation and (asked.own or url != asked.url):
                self._current = (url, dict(headers))
                self.generation += 1

    def new_address(self, failure: Rejected) -> Address | None:
        """A new address after a rejection. Without one the upstream is dropped, and None is returned."""
        rejected = failure.address
        with self._lock:
            redirected = rejected.url != self._first[0]
            if rejected.generation == self.generation and redirected:
                self._current = self._first
                self.generation += 1
        if not rejected.own and (redirected or (failure.denied and self.source.resolve is not None)):
            try:
                return self._own_address()
            except FetchError as unresolved:
                self.drop(f"{failure}; and there is no new address: {unresolved}")
                return None
        self.drop(str(failure))
        return None

    def waited(self, seconds: float) -> None:
        """One connection waited this long and got no byte yet."""
        with self._lock:
            self.busy += seconds

    def received(self, count: int, seconds: float) -> None:
        """One connection got ``count`` new bytes in ``seconds``. This resets the count of failures."""
        with self._lock:
            self.bytes += count
            self.busy += seconds
            self.proven = True
            self._failures = 0

    def failed(self, failure: Retry, began: float, generation: int, spare: bool) -> None:
        """Count a failed request, and drop the upstream after too many in a row.

        ``began``: when the request started (monotonic); requests that were running together and fail together count
        as one failure. ``generation`` is that of its address. ``spare``: another source can replace this one.
        """
        with self._lock:
            if failure.after is None and generation == self.generation and self._current[0] != self._first[0]:
                self._current = self._first  # the next redirect may lead to another server
                self.generation += 1
            if began <= self._failed_at:
                return
            self._failed_at = time.monotonic()
            self._failures += 1
            limit = TRIES_SPARE if spare else TRIES_PROVEN if self.proven else TRIES_UNPROVEN
            if self._failures >= limit:
                self.dropped = self.dropped or f"{failure} ({self._failures} tries)"
            pause = min(BACKOFF * 2 ** (self._failures - 1), BACKOFF_MAX)
            if failure.after is not None:
                pause = min(failure.after, RETRY_AFTER_MAX)
            self.not_before = self._failed_at + pause

    def drop(self, reason: str) -> None:
        """Use this source no more."""
        with self._lock:
            self.dropped = self.dropped or reason
