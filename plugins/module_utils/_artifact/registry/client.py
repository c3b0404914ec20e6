# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to an OCI registry, with a token where it wants one, and its refusals as problems.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ..._fetch.source import FetchError, origin, public_address
from ..._result import Problem
from ..option_names import ImageOptionNames
from ..remote_api import HOPS_MAX, RemoteApi, redirect
from .auth import Credentials
from .reference import DOCKER_HUB, Reference

# The machine that answers for Docker Hub has another name.
HUB_SERVER = "registry-1.docker.io"


class RegistryError(FetchError):
    """The registry did not give what was asked for."""


class RegistryClient(RemoteApi):
    """The connections to the registry of one reference. ``names``: the options that the problems name."""

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None,
        no_https: bool,
        ca_path: str | None,
        names: ImageOptionNames,
        timeout: float,
    ) -> None:
        super().__init__("registry", ca_path, timeout)
        self._reference = reference
        self._credentials = credentials
        self._names = names
        self._scheme = "http" if no_https else "https"
        self._authorization: dict[str, str] = {}

    def url(self, path: str) -> str:
        """The address of something in the reference's repository."""
        host = HUB_SERVER if self._reference.host == DOCKER_HUB else self._reference.host
        return f"{self._scheme}://{host}/v2/{self._reference.repository}/{path}"

    def authorization(self) -> dict[str, str]:
        """The header that the registry accepted last; empty if it wants none. For the registry itself alone."""
        return dict(self._authorization)

    def forget(self) -> None:
        """Use the token no more, as it may have expired."""
        self._authorization = {}

    def ask(self, method: str, path: str, accept: str, follow: bool = True) -> Any:
        """The requests.Response to one question, its body read. Raises RegistryError.

        ``follow``: follow redirects. Credentials are not sent to another server.
        """
        first = url = self.url(path)
        for _hop in range(HOPS_MAX):
            mine = origin(url) == origin(first)
            response = self.send(method, url, {"Accept": accept, **(self._authorization if mine else {})})
            if response.status_code == 401 and mine and self._meet(response):
                response = self.send(method, url, {"Accept": accept, **self._authorization})
            target = redirect(response, url)
            if target is None or not follow:
                break
            url = target
        if response.status_code >= 400:
            raise self._refusal(response)
        return response

    def _meet(self, response: Any) -> bool:
        """Get what a 401 asks for: a token, or user and password; False if there is nothing new to send."""
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
        # The registry may name any server for this. With TLS to both, that is no more than it could ask for itself; but
        # credentials that are meant for TLS must not be sent in clear text.
        if urlsplit(realm).scheme not in ("https", self._scheme):
            raise RegistryError(
                Problem(
                    self._names.src,
                    f"{self._reference.host} wants a token from {public_address(realm)!r}, which is no https address",
                    "User and password were not sent there. Have the registry's token server use TLS.",
                )
            )
        query = {"service": fields.get("service"), "scope": fields.get("scope") or self._scope}
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        response = self.send("GET", realm, headers, params={key: value for key, value in query.items() if value})
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            content = response.json()
        except ValueError:
            content = None
        token = (content.get("token") or content.get("access_token")) if isinstance(content, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            text = f"{public_address(realm)} gave no token for {self._reference.host}"
            raise RegistryError(Problem(self._names.src, text, "Check the registry's token server."))
        return token

    @property
    def _scope(self) -> str:
        return f"repository:{self._reference.repository}:pull"

    def unanswered(self, problem: Problem, status: int) -> RegistryError:
        names = self._names
        remedy = f"Check {names.src}, the proxy, and {names.ca_path} or {names.no_https}."
        return RegistryError(replace(problem, option=names.src, remedy=remedy))

    def secrets(self) -> dict[str, str]:
        given = self._credentials
        secrets = {"Authorization": self._authorization.get("Authorization", "")}
        return {**secrets, "basic": given.basic, "password": given.password} if given else secrets

    def message(self, response: Any) -> str:
        """The messages in its JSON, or its text."""
        try:
            errors = response.json()["errors"]
            return "; ".join(str(one.get("message") or one.get("code")) for one in errors)
        except (ValueError, KeyError, TypeError, AttributeError):
            return "" if "html" in response.headers.get("Content-Type", "").lower() else str(response.text)

    def _refusal(self, response: Any) -> RegistryError:
        status, host, repository = response.status_code, self._reference.host, self._reference.repository
        names, given = self._names, self._credentials
        remedy = f"Check {names.src}."
        if status == 404:
            text = f"{host} has no {repository} with {self._reference.wanted} (HTTP 404)"
        elif status in (401, 403) and given:
            text = f"{host} does not accept the user {given.username} for {repository} (HTTP {status})"
            remedy = f"Check {names.login}, and that this user may pull."
        elif status in (401, 403):
            text = f"{host} has no {repository}, or gives it to known users only (HTTP {status})"
            remedy = f"Check {names.src}, or give {names.login}."
        else:
            text = f"{host} refuses {self._reference} (HTTP {status})"
        return RegistryError(self.with_message(Problem(names.src, text, remedy), response))
