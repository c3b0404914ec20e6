# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One question to a model hub: asked with patience, the token for the hub alone, and its refusals in plain words.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

try:
    import requests
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.ranges import retry_after
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.source import (
    FetchError,
    origin,
    redact,
    shown,
)

REDIRECTS = (301, 302, 303, 307, 308)
HOPS_MAX = 5
# A question is small, and the operator waits for it: four more tries, after 1, 2, 4 and 8 s, or as the hub wishes.
TRIES = 5
PAUSE = 1.0
# The hub counts requests in windows of 5 minutes, so it has no reason to ask for more patience.
PATIENCE_MAX = 300.0
SAID_MAX = 300


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
        self.asked = 0
        self._token = token
        self._timeout = timeout
        self._verify = ca_path or True
        self._session = requests.Session()
        # Without this, requests would replace our Authorization by what ~/.netrc has for the host.
        self._session.auth = lambda request: request

    def headers_for(self, url: str) -> dict[str, str]:
        """What proves who asks, for an address of the hub itself; nothing for any other."""
        if self._token and origin(url) == origin(self.endpoint):
            return {"Authorization": f"Bearer {self._token}"}
        return {}

    def ask(self, method: str, url: str, subject: Subject, data: Mapping[str, Any] | None = None) -> Any:
        """The requests.Response to one question, its body read, a redirect as it is. Raises HubError."""
        words, status = "", 0
        for number in range(TRIES):
            wish: float | None = None
            try:
                response = self._send(method, url, data)
            except (requests.exceptions.RequestException, OSError) as broken:
                words, status = self._words(broken, url), 0
                if isinstance(broken, (requests.exceptions.SSLError, ValueError)):
                    break
            else:
                status = response.status_code
                if status < 500 and status not in (408, 425, 429):
                    if status >= 400:
                        raise self._refusal(response, subject)
                    return response
                words = f"HTTP {status} {self._said(response)}".strip()
                wish = retry_after(response.headers) if status in (429, 503) else None
            if number + 1 < TRIES:
                if wish is not None and wish > PATIENCE_MAX:
                    words += f" (it asks to wait for {wish:.0f} s)"
                    break
                time.sleep(PAUSE * 2**number if wish is None else wish)
        raise HubError(f"The model hub {shown(self.endpoint)} does not answer: {words}. {self._remedy(status)}", status)

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
                f"{shown(url)} answered with {kind} (HTTP {response.status_code}) and not with JSON: {self.endpoint} "
                "is no model hub, or a login page stands before it. Check endpoint and the proxy."
            ) from None

    def _send(self, method: str, url: str, data: Mapping[str, Any] | None) -> Any:
        self.asked += 1
        return self._session.request(
            method,
            url,
            data=data,
            headers={"Accept-Encoding": "identity", "User-Agent": "gpufleet.llamacpp", **self.headers_for(url)},
            allow_redirects=False,
            timeout=(min(15.0, self._timeout), self._timeout),
            verify=self._verify,
        )

    def _secrets(self) -> dict[str, str]:
        return self.headers_for(self.endpoint)

    def _words(self, broken: BaseException, url: str) -> str:
        """The cause inside an exception of requests, whose own text has the whole address in it."""
        if isinstance(broken, requests.exceptions.Timeout):
            return f"not one byte in {self._timeout:g} s"
        cause: BaseException = broken
        while True:
            inner = getattr(cause, "reason", None) or next(iter(cause.args), None)
            if not isinstance(inner, BaseException):
                break
            cause = inner
        text = redact(str(cause) or type(cause).__name__, url, self._secrets())
        return re.sub(r"^.*?>: |^\(?'?Connection aborted\.'?, ", "", text)

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

    def _said(self, response: Any) -> str:
        """What the hub says about its refusal, without what may be secret."""
        said = response.headers.get("X-Error-Message", "")
        if not said and "json" in response.headers.get("Content-Type", ""):
            try:
                said = str(response.json().get("error", ""))
            except (ValueError, AttributeError):
                said = ""
        return re.sub(r"\s+", " ", redact(said, response.url or "", self._secrets())).strip()[:SAID_MAX]

    def _refusal(self, response: Any, subject: Subject) -> HubError:
        status, code = response.status_code, response.headers.get("X-Error-Code", "")
        page = f"{shown(self.endpoint)}/{subject.repo}"
        given = self._token is not None
        if code == "GatedRepo":
            words = f"The repository {subject.repo} is gated. Accept its licence on {page}, " + (
                "with the account that the given token is of; a fine-grained token also has to allow reading gated "
                "repositories."
                if given
                else "and give a token of the account that did, as token_file or token."
            )
        elif code == "RepoNotFound":
            words = (
                f"The hub {shown(self.endpoint)} has no repository {subject.repo}, or it is private. Check repo; "
                + (
                    "the given token may not be of an account that may read it."
                    if given
                    else "for a private one, give a token of an account that may read it, as token_file or token."
                )
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
                f"The hub {shown(self.endpoint)} does not accept the given token for {subject.repo} (HTTP {status}). "
                "Check that it is whole, not expired, and of an account that may read the repository."
            )
        elif status in (401, 403):
            words = (
                f"The hub {shown(self.endpoint)} wants to know who asks for {subject.repo} (HTTP {status}). Check "
                "repo, or give a token, as token_file or token."
            )
        else:
            words = f"The hub {shown(self.endpoint)} refuses to tell about {subject.repo}: HTTP {status}."
        said = self._said(response)
        return HubError(f"{words} The hub says: {said}" if said else words, status, code)
