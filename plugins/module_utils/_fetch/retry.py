# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small HTTP requests that are retried while the server does not answer.

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

from .http_range import CONNECT_TIMEOUT, HEADERS, describe, new_session, retry_after
from .source import redact

# The operator waits for this: four retries, after 1, 2, 4 and 8 s, or when the server asks for them.
TRIES = 5
PAUSE = 1.0
# A server that asks for a longer pause than this is not waited for. Rate limits count requests in windows of minutes.
PAUSE_MAX = 300.0
MESSAGE_MAX = 300


class NoResponse(Exception):
    """All tries failed. ``status``: that of the last response, 0 if there was none."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class RetryingClient:
    """Connections for small requests. ``timeout``: seconds without a byte; ``count``: the requests so far.

    ``message_of`` finds the server's error message in a response. ``secrets``: headers whose values are redacted.
    """

    def __init__(
        self,
        ca_path: str | None,
        timeout: float,
        message_of: Callable[[Any], str],
        secrets: Callable[[], Mapping[str, str]],
    ) -> None:
        self.count = 0
        self._verify = ca_path or True
        self._timeout = timeout
        self._message_of = message_of
        self._secrets = secrets
        self._session = new_session()

    def request(self, method: str, url: str, headers: Mapping[str, str], **more: Any) -> Any:
        """A requests.Response with its body read. Redirects are not followed. Raises NoResponse."""
        text, status = "", 0
        for number in range(TRIES):
            pause = PAUSE * 2**number
            self.count += 1
            try:
                response = self._session.request(
                    method,
                    url,
                    headers={**HEADERS, **headers},
                    allow_redirects=False,
                    timeout=(min(CONNECT_TIMEOUT, self._timeout), self._timeout),
                    verify=self._verify,
                    **more,
                )
            except (requests.exceptions.RequestException, OSError) as failure:
                text, status = describe(failure, self._timeout, url, self._secrets()), 0
                if isinstance(failure, (requests.exceptions.SSLError, ValueError)):
                    break
            else:
                status = response.status_code
                if status < 500 and status not in (408, 425, 429):
                    return response
                text = f"HTTP {status} {self.message(response)}".strip()
                asked = retry_after(response.headers) if status in (429, 503) else None
                if asked is not None and asked > PAUSE_MAX:
                    text += f" (the server asks to wait {asked:.0f} s)"
                    break
                pause = pause if asked is None else asked
            if number + 1 < TRIES:
                time.sleep(pause)
        raise NoResponse(text, status)

    def message(self, response: Any) -> str:
        """The server's error message in one short line, without secrets."""
        text = redact(self._message_of(response), response.url or "", self._secrets())
        return re.sub(r"\s+", " ", text).strip()[:MESSAGE_MAX]
