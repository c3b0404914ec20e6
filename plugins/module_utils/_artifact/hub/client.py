# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One question to a model hub: asked with patience, the token for the hub alone, and its refusals in plain words.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from ..._fetch.http_range import REDIRECTS
from ..._fetch.retry import NoResponse, RetryingClient
from ..._fetch.source import FetchError, origin, public_address

HOPS_MAX = 5


class HubError(FetchError):
    """The hub did not give what was asked; the text says what was found and what to do, and no secret.

    ``status`` is that of HTTP, 0 where nothing answered; ``code`` the hub's X-Error-Code, "" where it sent none.
    """

    def __init__(self, words: str, status: int = 0, code: str = "") -> None:
        super().__init__(words)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Subject:
    """What a question is about, for the words of a refusal."""

    repo: str
    revision: str
    file: str = ""


class HubClient:
    """The connections to one hub. ``timeout`` in seconds without a byte; ``asked`` counts the requests."""

    def __init__(self, endpoint: str, token: str | None, ca_path: str | None, timeout: float = 30.0) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._name = public_address(self.endpoint)
        self._token = token
        self._client = RetryingClient(ca_path, timeout, _said, lambda: self.headers_for(self.endpoint))

    @property
    def asked(self) -> int:
        return self._client.count

    def headers_for(self, url: str) -> dict[str, str]:
        """What proves who asks, for an address of the hub itself; nothing for any other."""
        if self._token and origin(url) == origin(self.endpoint):
            return {"Authorization": f"Bearer {self._token}"}
        return {}

    def ask(self, method: str, url: str, subject: Subject, data: Mapping[str, Any] | None = None) -> Any:
        """The requests.Response to one question, its body read, a redirect as it is. Raises HubError."""
        try:
            response = self._client.request(method, url, self.headers_for(url), data=data)
        except NoResponse as failure:
            raise HubError(
                f"The model hub {self._name} does not answer: {failure}. {self._remedy(failure.status)}",
                failure.status,
            ) from None
        if response.status_code >= 400:
            raise self._refusal(response, subject)
        return response

    def json(self, method: str, url: str, subject: Subject, data: Mapping[str, Any] | None = None) -> tuple[Any, str]:
        """The answer's JSON and the address of its next page, "" where that was the last. Raises HubError.

        Redirects are followed: that is how a renamed repository answers.
        """
        for _hop in range(HOPS_MAX):
            response = self.ask(method, url, subject, data)
            target = response.headers.get("Location")
            if response.status_code not in REDIRECTS or not target:
                break
            url = urljoin(url, target)
        following = response.links.get("next", {}).get("url")
        try:
            return response.json(), urljoin(url, following) if following else ""
        except ValueError:
            kind = response.headers.get("Content-Type", "nothing that says its type")
            raise HubError(
                f"{public_address(url)} answered with {kind} (HTTP {response.status_code}) and not with JSON: "
                f"{self.endpoint} is no model hub, or a login page stands before it. Check endpoint and the proxy."
            ) from None

    @staticmethod
    def _remedy(status: int) -> str:
        if status == 429:
            return (
                "It limits how often it is asked. Run this again in some minutes, for fewer hosts at a time, or with a "
                "token, which has a limit of its own; with a full commit as revision, a model that is there costs no "
                "request."
            )
        return (
            "Check endpoint, the proxy and ca_path, or run this again later. To do without the hub where the model is "
            "there already, set offline."
        )

    def _refusal(self, response: Any, subject: Subject) -> HubError:
        status, code = response.status_code, response.headers.get("X-Error-Code", "")
        page = f"{self._name}/{subject.repo}"
        given = self._token is not None
        if code == "GatedRepo":
            words = f"The repository {subject.repo} is gated. Accept its licence on {page}, " + (
                "with the account that the given token is of; a fine-grained token also has to allow reading gated "
                "repositories."
                if given
                else "and give a token of the account that did, as token_file or token."
            )
        elif code == "RepoNotFound":
            words = f"The hub {self._name} has no repository {subject.repo}, or it is private. Check repo; " + (
                "the given token may not be of an account that may read it."
                if given
                else "for a private one, give a token of an account that may read it, as token_file or token."
            )
        elif code == "RevisionNotFound":
            words = (
                f"The repository {subject.repo} has no revision {subject.revision}. Give a branch, a tag or a full "
                f"commit that {page}/commits/main shows."
            )
        elif code == "EntryNotFound":
            words = f"The repository {subject.repo} has no file {subject.file} at the revision {subject.revision}."
        elif status in (401, 403) and given:
            words = (
                f"The hub {self._name} does not accept the given token for {subject.repo} (HTTP {status}). "
                "Check that it is whole, not expired, and of an account that may read the repository."
            )
        elif status in (401, 403):
            words = (
                f"The hub {self._name} wants to know who asks for {subject.repo} (HTTP {status}). Check "
                "repo, or give a token, as token_file or token."
            )
        else:
            words = f"The hub {self._name} refuses to tell about {subject.repo}: HTTP {status}."
        said = self._client.message(response)
        return HubError(f"{words} The hub says: {said}" if said else words, status, code)


def _said(response: Any) -> str:
    said: str = response.headers.get("X-Error-Message", "")
    if not said and "json" in response.headers.get("Content-Type", ""):
        try:
            said = str(response.json().get("error", ""))
        except (ValueError, AttributeError):
            said = ""
    return said
