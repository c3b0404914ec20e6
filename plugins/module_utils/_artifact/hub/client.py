# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to a model hub: the token for the hub alone, and its refusals as problems.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from ..._fetch.source import FetchError, origin, public_address
from ..._result import Problem
from ..remote_api import HOPS_MAX, RemoteApi, kind_of, redirect


class HubError(FetchError):
    """The hub did not give what was asked for. ``status`` is that of HTTP, 0 where nothing answered."""

    def __init__(self, problem: Problem, status: int = 0, code: str = "") -> None:
        super().__init__(problem)
        self.status = status
        self.code = code  # the hub's X-Error-Code, "" where it sent none


@dataclass(frozen=True)
class Subject:
    """What a question is about, for the problem of a refusal."""

    repo: str
    revision: str
    file: str = ""


class HubClient(RemoteApi):
    """The connections to one hub."""

    def __init__(self, endpoint: str, token: str | None, ca_path: str | None, timeout: float = 30.0) -> None:
        super().__init__("hub", ca_path, timeout)
        self.endpoint = endpoint.rstrip("/")
        self._token = token

    def secrets(self) -> Mapping[str, str]:
        return self.headers_for(self.endpoint)

    def headers_for(self, url: str) -> dict[str, str]:
        """The token, for an address of the hub itself; nothing for any other."""
        if self._token and origin(url) == origin(self.endpoint):
            return {"Authorization": f"Bearer {self._token}"}
        return {}

    def ask(self, method: str, url: str, subject: Subject, data: Mapping[str, Any] | None = None) -> Any:
        """The requests.Response to one question, its body read, a redirect not followed. Raises HubError."""
        response = self.send(method, url, self.headers_for(url), data=data)
        if response.status_code >= 400:
            problem = self.with_message(self._refusal(response, subject), response)
            raise HubError(problem, response.status_code, response.headers.get("X-Error-Code", ""))
        return response

    def json(self, method: str, url: str, subject: Subject, data: Mapping[str, Any] | None = None) -> tuple[Any, str]:
        """The JSON of the answer and the address of its next page, "" for the last one. Raises HubError.

        Follows redirects: that is how a renamed repository answers.
        """
        for _hop in range(HOPS_MAX):
            response = self.ask(method, url, subject, data)
            target = redirect(response, url)
            if target is None:
                break
            url = target
        following = response.links.get("next", {}).get("url")
        try:
            return response.json(), urljoin(url, following) if following else ""
        except ValueError:
            text = f"{public_address(url)} answered with {kind_of(response)} and not with JSON"
            remedy = "It is no model hub, or a login page is in front of it. Check endpoint and the proxy."
            raise HubError(Problem("endpoint", text, remedy)) from None

    def unanswered(self, problem: Problem, status: int) -> HubError:
        if status == 429:
            remedy = (
                "It limits the number of requests. Run this again in some minutes, for fewer hosts at a time, or with "
                "a token, which has a limit of its own. With a full commit as revision, a model that is on the host "
                "costs no request."
            )
        else:
            remedy = (
                "Check endpoint, the proxy and ca_path, or run this again later. Where the model is on the host "
                "already, offline uses no hub."
            )
        return HubError(replace(problem, option="endpoint", remedy=remedy), status)

    def message(self, response: Any) -> str:
        said: str = response.headers.get("X-Error-Message", "")
        if not said and "json" in response.headers.get("Content-Type", ""):
            try:
                said = str(response.json().get("error", ""))
            except (ValueError, AttributeError):
                said = ""
        return said

    def _refusal(self, response: Any, subject: Subject) -> Problem:
        status, repo = response.status_code, subject.repo
        hub, given = public_address(self.endpoint), self._token is not None
        page = f"{hub}/{repo}"
        code = response.headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            remedy = (
                f"Accept its licence on {page} with the account of the given token. A fine-grained token also has to "
                "allow reading gated repositories."
                if given
                else f"Accept its licence on {page}, and give a token of that account as token_file or token."
            )
            return Problem("repo", f"the repository {repo} is gated", remedy)
        if code == "RepoNotFound":
            remedy = (
                "Check repo, and that the account of the given token may read it."
                if given
                else "Check repo. For a private one, give a token of an account that may read it (token_file or token)."
            )
            return Problem("repo", f"the hub {hub} has no repository {repo}, or it is private", remedy)
        if code == "RevisionNotFound":
            remedy = f"Give a branch, a tag or a full commit that {page}/commits/main shows."
            return Problem("revision", f"the repository {repo} has no revision {subject.revision}", remedy)
        if code == "EntryNotFound":
            text = f"the repository {repo} has no file {subject.file} at the revision {subject.revision}"
            return Problem("file", text, "Check file and revision.")
        if status in (401, 403) and given:
            text = f"the hub {hub} does not accept the given token for {repo} (HTTP {status})"
            remedy = "Check that it is complete, not expired, and of an account that may read the repository."
            return Problem("token", text, remedy)
        if status in (401, 403):
            text = f"the hub {hub} gives {repo} to known accounts only (HTTP {status})"
            return Problem("repo", text, "Check repo, or give a token as token_file or token.")
        return Problem("repo", f"the hub {hub} refuses {repo} (HTTP {status})", f"Check that {page} can be read.")
