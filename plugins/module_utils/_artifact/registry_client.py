# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One question to an OCI registry: asked with patience, with a token where it wants one, refusals in plain words.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

try:
    import requests
except ImportError:  # the module reports it with missing_required_lib before anything here is called
    requests = None  # type: ignore[assignment]

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image_origin import DOCKER_HUB, Reference
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.ranges import REDIRECTS, retry_after
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.registry_auth import Credentials
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.source import (
    FetchError,
    origin,
    redact,
    shown,
)

# The Hub's name is not the name of the machine that answers for it.
HUB_SERVER = "registry-1.docker.io"
HOPS_MAX = 5
# A question is small, and the operator waits for it: four more tries, after 1, 2, 4 and 8 s, or as the registry wishes.
TRIES = 5
PAUSE = 1.0
PATIENCE_MAX = 300.0
SAID_MAX = 300


class RegistryError(FetchError):
    """The registry did not give what was asked; the text says what was found and what to do, and no secret."""


class RegistryClient:
    """The connections to the registry of one reference. ``timeout`` in seconds without a byte."""

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None,
        no_https: bool,
        ca_path: str | None,
        timeout: float,
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._scheme = "http" if no_https else "https"
        self._verify = ca_path or True
        self._timeout = timeout
        self._authorization: dict[str, str] = {}
        self.asked = 0
        self._session = requests.Session()
        # Without this, requests would replace our Authorization by what ~/.netrc has for the host.
        self._session.auth = lambda request: request

    def url(self, path: str) -> str:
        """The address of something in the reference's repository."""
        host = HUB_SERVER if self._reference.host == DOCKER_HUB else self._reference.host
        return f"{self._scheme}://{host}/v2/{self._reference.repository}/{path}"

    def authorization(self) -> dict[str, str]:
        """The header that the registry accepted last; empty where it wants none. For the registry itself alone."""
        return dict(self._authorization)

    def forget(self) -> None:
        """Use the token no more, as it may have expired."""
        self._authorization = {}

    def ask(self, method: str, path: str, accept: str, follow: bool = True) -> Any:
        """The requests.Response to one question, its body read. Raises RegistryError.

        ``follow``: go where a redirect leads; what proves who asks is not sent to another server.
        """
        first = url = self.url(path)
        for _hop in range(HOPS_MAX):
            mine = origin(url) == origin(first)
            response = self._send(method, url, {"Accept": accept, **(self._authorization if mine else {})})
            if response.status_code == 401 and mine and self._meet(response):
                response = self._send(method, url, {"Accept": accept, **self._authorization})
            target = response.headers.get("Location")
            if response.status_code not in REDIRECTS or not target or not follow:
                break
            url = urljoin(url, target)
        if response.status_code >= 400:
            raise self._refusal(response)
        return response

    def _meet(self, response: Any) -> bool:
        """Have what the 401 asks for: a token, or user and password; False where there is nothing (new) to send."""
        challenge = response.headers.get("WWW-Authenticate", "")
        kind, dummy, rest = challenge.strip().partition(" ")
        if kind.lower() == "bearer":
            self._authorization = {"Authorization": f"Bearer {self._token(rest)}"}
            return True
        if kind.lower() == "basic" and self._credentials and not self._authorization:
            self._authorization = {"Authorization": self._credentials.basic}
            return True
        return False

    def _token(self, challenge: str) -> str:
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = fields.get("realm", "")
        # The registry may name any server for this. Over the same kind of line, that is no more than it could ask for
        # itself; but what was to go over TLS does not go in the clear.
        if urlsplit(realm).scheme not in ("https", self._scheme):
            raise RegistryError(
                f"{self._reference.host} wants a token to be had at {shown(realm)!r}, which is no https address, so "
                "user and password were not sent there."
            )
        query = {"service": fields.get("service"), "scope": fields.get("scope") or self._scope}
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        response = self._send("GET", realm, headers, {key: value for key, value in query.items() if value})
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            content = response.json()
        except ValueError:
            content = None
        token = (content.get("token") or content.get("access_token")) if isinstance(content, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryError(f"{shown(realm)} gave no token for {self._reference.host}, where one was asked.")
        return token

    @property
    def _scope(self) -> str:
        return f"repository:{self._reference.repository}:pull"

    def _send(self, method: str, url: str, headers: Mapping[str, str], query: Mapping[str, str] | None = None) -> Any:
        words = ""
        for number in range(TRIES):
            wish: float | None = None
            self.asked += 1
            try:
                response = self._session.request(
                    method,
                    url,
                    params=query,
                    headers={"Accept-Encoding": "identity", "User-Agent": "gpufleet.llamacpp", **headers},
                    allow_redirects=False,
                    timeout=(min(15.0, self._timeout), self._timeout),
                    verify=self._verify,
                )
            except (requests.exceptions.RequestException, OSError) as broken:
                words = self._words(broken, url)
                if isinstance(broken, (requests.exceptions.SSLError, ValueError)):
                    break
            else:
                if response.status_code < 500 and response.status_code not in (408, 425, 429):
                    return response
                words = f"HTTP {response.status_code} {self._said(response)}".strip()
                wish = retry_after(response.headers) if response.status_code in (429, 503) else None
            if number + 1 < TRIES:
                if wish is not None and wish > PATIENCE_MAX:
                    words += f" (it asks to wait for {wish:.0f} s)"
                    break
                time.sleep(PAUSE * 2**number if wish is None else wish)
        raise RegistryError(
            f"The registry {shown(url)} does not answer: {words}. Check src, the proxy, and ca_path or no_https."
        )

    def _secrets(self) -> dict[str, str]:
        given = self._credentials
        secrets = {"Authorization": self._authorization.get("Authorization", "")}
        return {**secrets, "basic": given.basic, "password": given.password} if given else secrets

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

    def _said(self, response: Any) -> str:
        """What the registry says about an error: the messages of its JSON, or the beginning of its text."""
        try:
            errors = response.json()["errors"]
            text = "; ".join(str(one.get("message") or one.get("code")) for one in errors)
        except (ValueError, KeyError, TypeError, AttributeError):
            text = "" if "html" in response.headers.get("Content-Type", "").lower() else response.text
        return re.sub(r"\s+", " ", redact(text, response.url or "", self._secrets())).strip()[:SAID_MAX]

    def _refusal(self, response: Any) -> RegistryError:
        status, host, given = response.status_code, self._reference.host, self._credentials
        if status == 404:
            words = f"{host} has no {self._reference.repository} with {self._reference.wanted} (HTTP 404). Check src."
        elif status in (401, 403) and given:
            words = (
                f"{host} does not accept the user {given.username} for {self._reference.repository} (HTTP {status}). "
                "Check username and password, and that this user may pull."
            )
        elif status in (401, 403):
            words = (
                f"{host} wants to know who asks for {self._reference.repository} (HTTP {status}), or has no such image"
                ". Check src, or give username and password, or auth_file."
            )
        else:
            words = f"{host} refuses to give {self._reference}: HTTP {status}."
        said = self._said(response)
        return RegistryError(f"{words} The registry says: {said}" if said else words)
