# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small question to a server over HTTP, asked again with patience while the server cannot answer.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

try:
    import requests
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]

from .http_range import cause_of, retry_after
from .source import redact

# The operator waits for the answer: four more tries, after 1, 2, 4 and 8 s, or as the server wishes.
TRIES = 5
PAUSE = 1.0
# Servers count requests in windows of some minutes, so they have no reason to ask for more patience.
PATIENCE_MAX = 300.0
SAID_MAX = 300


class Unanswered(Exception):
    """No answer, however often it was asked; ``status`` is that of the last refusal, 0 where nothing answered."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


class Asker:
    """The connections for questions; ``timeout`` in seconds without a byte, ``asked`` counts the requests.

    ``said`` finds in a response what the server says about it; ``secrets`` are headers whose values no text may show.
    """

    def __init__(
        self,
        ca_path: str | None,
        timeout: float,
        said: Callable[[Any], str],
        secrets: Callable[[], Mapping[str, str]],
    ) -> None:
        self.asked = 0
        self._verify = ca_path or True
        self._timeout = timeout
        self._said = said
        self._secrets = secrets
        self._session = requests.Session()
        # Without this, requests would replace our Authorization by what ~/.netrc has for the host.
        self._session.auth = lambda request: request

    def ask(self, method: str, url: str, headers: Mapping[str, str], **more: Any) -> Any:
        """The requests.Response to one question, its body read, a redirect as it is. Raises Unanswered."""
        words, status = "", 0
        for number in range(TRIES):
            wish: float | None = None
            self.asked += 1
            try:
                response = self._session.request(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", "User-Agent": "gpufleet.llamacpp", **headers},
                    allow_redirects=False,
                    timeout=(min(15.0, self._timeout), self._timeout),
                    verify=self._verify,
                    **more,
                )
            except (requests.exceptions.RequestException, OSError) as broken:
                words, status = self._words(broken, url), 0
                if isinstance(broken, (requests.exceptions.SSLError, ValueError)):
                    break
            else:
                status = response.status_code
                if status < 500 and status not in (408, 425, 429):
                    return response
                words = f"HTTP {status} {self.said(response)}".strip()
                wish = retry_after(response.headers) if status in (429, 503) else None
            if number + 1 < TRIES:
                if wish is not None and wish > PATIENCE_MAX:
                    words += f" (it asks to wait for {wish:.0f} s)"
                    break
                time.sleep(PAUSE * 2**number if wish is None else wish)
        raise Unanswered(words, status)

    def said(self, response: Any) -> str:
        """What the server says in a refusal, in one short line without what may be secret."""
        return re.sub(r"\s+", " ", redact(self._said(response), response.url or "", self._secrets())).strip()[:SAID_MAX]

    def _words(self, broken: BaseException, url: str) -> str:
        if isinstance(broken, requests.exceptions.Timeout):
            return f"not one byte in {self._timeout:g} s"
        return cause_of(broken, url, self._secrets())
