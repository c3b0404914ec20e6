# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place that a file can be fetched from: its address now, its trust, its failures, its speed.

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

# Seconds. A failing place is left alone for BACKOFF, twice that, ... at most BACKOFF_MAX.
BACKOFF = 0.5
BACKOFF_MAX = 30.0
# A server may ask for more patience than that (Retry-After), but not for more than this.
RETRY_AFTER_MAX = 300.0
# Failures in a row without one new byte before a place is given up: one that never answered, one that did, one that can
# be spared.
TRIES_UNPROVEN = 5
TRIES_PROVEN = 12
TRIES_SPARE = 3
# After so many addresses that each were good for one request only, connections share addresses no more.
ADDRESSES_ONCE = 2


class FetchError(Exception):
    """A file could not be fetched; the text says what was found, what was expected and what to do, and no secret."""


@dataclass(frozen=True)
class Source:
    """Where a file is.

    ``headers`` are sent to the origin (scheme, host, port) of ``url`` alone. ``resolve`` returns a fresh (url, headers)
    when the server says 401 or 403, as for a signed URL that expired; it may raise FetchError.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    resolve: Callable[[], tuple[str, Mapping[str, str]]] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return shown(self.url)


def shown(url: str) -> str:
    """``url`` as it may be printed: no user, no password, no query, no fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origin(url: str) -> tuple[str, str, int | None]:
    """What credentials are bound to: scheme, host, port."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(scheme)


def redact(text: str, url: str, headers: Mapping[str, str]) -> str:
    """``text`` without the secrets of a request that an error page or an exception may repeat."""
    parts = urlsplit(url)
    secrets = {parts.query, unquote(parts.query)}
    for pair in parts.query.split("&"):
        value = pair.partition("=")[2]
        secrets |= {value, unquote(value)}
    for name, value in headers.items():
        if name.lower() not in ("range", "accept-encoding", "if-range", "user-agent"):
            # A token out of a file may have its end of line behind it, which an exception shows in another way.
            secrets |= {value.strip(), value.strip().rpartition(" ")[2]}
    for secret in sorted((one for one in secrets if len(one) >= 6), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"//[^/@\s]+@", "//", text)
    return re.sub(r"\?[\w.%~+-]+=[^\s'\")<]*", "", text)


def _split_credentials(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """User and password out of the URL into a header, so that they are bound to their origin like any other secret."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, dict(headers)
    name, dummy, password = user.partition(":")
    pair = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {pair}", **headers}


@dataclass(frozen=True)
class Address:
    """Where to ask, what to send there, the ``generation`` of that knowledge; ``fresh``: no other request had it."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    generation: int
    fresh: bool


class Place:
    """One Source while it is in use by several threads."""

    def __init__(self, source: Source, mirror: bool) -> None:
        self.source = source
        self.mirror = mirror
        self.dropped: str | None = None
        self.proven = False
        self.active = 0
        self.bytes = 0
        self.busy = 0.0
        self.not_before = 0.0
        self._failures = 0
        self._failed_at = 0.0
        self._generation = 0
        # The last generation whose address was good for a second request, and the last that was counted as one that
        # was not: refusals come late, when others have brought newer addresses.
        self._shared = self._counted = -1
        self._once = 0
        self._lock = threading.Lock()
        self._base = _split_credentials(source.url, source.headers)
        self._now = self._base

    def __str__(self) -> str:
        return str(self.source)

    @property
    def rate(self) -> float:
        """Bytes per second of one connection to this place."""
        return self.bytes / self.busy if self.busy > 0 else 0.0

    @property
    def generation(self) -> int:
        return self._generation

    def address(self) -> Address:
        """Where to ask now; raises what the source's ``resolve`` raises."""
        with self._lock:
            if self._once < ADDRESSES_ONCE:
                return Address(*self._now, self._generation, False)
        return self._fresh()

    def _fresh(self) -> Address:
        """The beginning again, for one request alone."""
        url, headers = self._base
        if self.source.resolve is not None:
            url, headers = _split_credentials(*self.source.resolve())
        return Address(url, headers, self._generation, True)

    def settle(self, asked: Address, url: str, headers: Mapping[str, str]) -> None:
        """``asked`` led to a good answer of ``url``: the next requests need not ask the first server again."""
        with self._lock:
            if asked.generation != self._generation:
                return
            if not asked.fresh and url == asked.url:
                self._shared, self._once = asked.generation, 0
            elif self._once < ADDRESSES_ONCE:
                self._now = (url, dict(headers))
                self._generation += 1

    def forget(self, generation: int) -> bool:
        """Go back to the first address; False if that is where we are."""
        with self._lock:
            if generation != self._generation:
                return True
            if self._now[0] == self._base[0]:
                return False
            self._now = self._base
            self._generation += 1
            return True

    def renew(self, refused: Address, denied: bool) -> Address | None:
        """A fresh address after one was refused; None if there is none. ``denied``: by a 401 or 403.

        Raises what the source's ``resolve`` raises.
        """
        with self._lock:
            settled = refused.url != self._base[0]
            # One that was good for who brought it and not for the next may be of the kind that is good once.
            if denied and settled and not refused.fresh and refused.generation > max(self._shared, self._counted):
                self._once += 1
                self._counted = refused.generation
            if refused.generation == self._generation and settled:
                self._now = self._base
                self._generation += 1
        if refused.fresh or not (settled or (denied and self.source.resolve is not None)):
            return None
        return self._fresh()

    def waited(self, seconds: float) -> None:
        """One connection had no byte yet for so long."""
        with self._lock:
            self.busy += seconds

    def moved(self, count: int, seconds: float) -> None:
        """``count`` new bytes came in ``seconds`` of one connection: the place works, past failures are forgiven."""
        with self._lock:
            self.bytes += count
            self.busy += seconds
            self.proven = True
            self._failures = 0

    def failed(self, words: str, began: float, after: float | None, spare: bool) -> None:
        """A request that began at ``began`` (monotonic) failed; ``after`` is the server's own wish in seconds.

        Requests that were under way together fail together: that is one failure. Drops the place when its tries are
        used up.
        """
        with self._lock:
            if began <= self._failed_at:
                return
            self._failed_at = time.monotonic()
            self._failures += 1
            limit = TRIES_SPARE if spare else TRIES_PROVEN if self.proven else TRIES_UNPROVEN
            if self._failures >= limit:
                self.dropped = self.dropped or f"{words} ({self._failures} tries)"
            pause = min(BACKOFF * 2 ** (self._failures - 1), BACKOFF_MAX)
            if after is not None:
                pause = min(after, RETRY_AFTER_MAX)
            self.not_before = self._failed_at + pause

    def drop(self, words: str) -> None:
        """Use this place no more."""
        with self._lock:
            self.dropped = self.dropped or words
