# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One question to an OCI registry: asked with patience, with a token where it wants one, refusals in plain words.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..._fetch.http_range import REDIRECTS
from ..._fetch.retry import NoResponse, RetryingClient
from ..._fetch.source import FetchError, origin, public_address
from ..image.sources import DOCKER_HUB, Reference
from .auth import Credentials

# The Hub's name is not the name of the machine that answers for it.
HUB_SERVER = "registry-1.docker.io"
HOPS_MAX = 5


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
        self._authorization: dict[str, str] = {}
        self._client = RetryingClient(ca_path, timeout, _said, self._secrets)

    @property
    def asked(self) -> int:
        return self._client.count

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
                f"{self._reference.host} wants a token to be had at {public_address(realm)!r}, which is no https "
                "address, so user and password were not sent there."
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
            raise RegistryError(
                f"{public_address(realm)} gave no token for {self._reference.host}, where one was asked."
            )
        return token

    @property
    def _scope(self) -> str:
        return f"repository:{self._reference.repository}:pull"

    def _send(self, method: str, url: str, headers: Mapping[str, str], query: Mapping[str, str] | None = None) -> Any:
        try:
            return self._client.request(method, url, headers, params=query)
        except NoResponse as failure:
            raise RegistryError(
                f"The registry {public_address(url)} does not answer: {failure}. Check src, the proxy, and ca_path or "
                "no_https."
            ) from None

    def _secrets(self) -> dict[str, str]:
        given = self._credentials
        secrets = {"Authorization": self._authorization.get("Authorization", "")}
        return {**secrets, "basic": given.basic, "password": given.password} if given else secrets

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
        said = self._client.message(response)
        return RegistryError(f"{words} The registry says: {said}" if said else words)


def _said(response: Any) -> str:
    """The messages of its JSON, or its text."""
    try:
        errors = response.json()["errors"]
        return "; ".join(str(one.get("message") or one.get("code")) for one in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "" if "html" in response.headers.get("Content-Type", "").lower() else str(response.text)
