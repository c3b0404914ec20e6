# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to the API of a server, with retries, and its refusals as problems: shared by the hub and the registries.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

from .._fetch.http_range import REDIRECTS
from .._fetch.retry import NoResponse, RetryingClient
from .._fetch.source import public_address
from .._result import Problem

HOPS_MAX = 5


class RemoteApi:
    """The connections to one server. ``name``: what problems call it; ``timeout`` in seconds without a byte.

    A subclass says in ``message`` where the server's own words are, and in ``secrets`` which headers nobody may read.
    """

    def __init__(self, name: str, ca_path: str | None, timeout: float) -> None:
        self._name = name
        self._client = RetryingClient(ca_path, timeout, self.message, self.secrets)

    @property
    def asked(self) -> int:
        """The number of requests so far."""
        return self._client.count

    def message(self, response: Any) -> str:
        """What the server says about a refusal."""
        raise NotImplementedError

    def secrets(self) -> Mapping[str, str]:
        """Headers whose values must not be shown."""
        raise NotImplementedError

    def unanswered(self, problem: Problem, status: int) -> Exception:
        """The error for a server that does not answer; ``status`` is its last one, 0 for none."""
        raise NotImplementedError

    def send(self, method: str, url: str, headers: Mapping[str, str], **more: Any) -> Any:
        """The requests.Response to one question, its body read, a redirect not followed. Raises unanswered()."""
        try:
            return self._client.request(method, url, headers, **more)
        except NoResponse as failure:
            problem = Problem("", f"the {self._name} {public_address(url)} does not answer: {failure}")
            raise self.unanswered(problem, failure.status) from None

    def with_message(self, problem: Problem, response: Any) -> Problem:
        """The problem with what the server says about it."""
        said = self._client.message(response)
        return replace(problem, text=f"{problem.text} (the {self._name} says: {said})") if said else problem


def redirect(response: Any, url: str) -> str | None:
    """The address that a response to ``url`` redirects to."""
    target = response.headers.get("Location")
    return urljoin(url, target) if response.status_code in REDIRECTS and target else None


def kind_of(response: Any) -> str:
    """What a response that is not the expected JSON is instead."""
    return f"{response.headers.get('Content-Type', 'content of no type')} (HTTP {response.status_code})"
