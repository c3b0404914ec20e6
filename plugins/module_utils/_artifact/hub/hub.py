# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model hub that speaks the protocol of huggingface.co: revisions, files with size and sha256, addresses to fetch.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..._fetch.source import Source, origin
from ..._result import OperatorError, Problem
from ..file_record import is_sha256
from ..remote_api import HOPS_MAX, redirect
from .client import HubClient, HubError, Subject
from .naming import is_commit, names_of_model, resolve_url

__all__ = ["Hub", "HubError", "Listed", "Revision"]


@dataclass(frozen=True)
class Revision:
    """A repository at one commit (40 hex): the ``names`` of its files; ``gated``: only some accounts may fetch them."""

    commit: str
    names: tuple[str, ...]
    gated: bool


@dataclass(frozen=True)
class Listed:
    """A file of a repository. ``sha256`` is None where the hub does not give it, as for a small file outside LFS.

    ``blob`` is git's name of the content of such a file (40 hex).
    """

    name: str
    size: int | None
    sha256: str | None
    blob: str | None = None


@dataclass(frozen=True)
class Linked:
    """The address of a file's bytes, which may be signed and expire, and what the hub says about them."""

    url: str
    headers: Mapping[str, str]
    size: int | None
    sha256: str | None


class Hub:
    """The repositories of a hub. Asks at most once for each thing. Raises HubError."""

    def __init__(self, endpoint: str, token: str | None = None, ca_path: str | None = None) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._client = HubClient(self.endpoint, token, ca_path)

    @property
    def asked(self) -> int:
        """The number of requests so far."""
        return self._client.asked

    def revision(self, repo: str, revision: str) -> Revision:
        """The commit of the revision now, and the names of its files."""
        subject = Subject(repo, revision)
        url = f"{self.endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}"
        content, dummy = self._client.json("GET", url, subject)
        commit = content.get("sha") if isinstance(content, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            remedy = f"{self.endpoint} is no model hub, or one of another kind. Check endpoint."
            raise HubError(Problem("endpoint", f"{url} names no commit", remedy))
        siblings = content.get("siblings")
        names = [one["rfilename"] for one in siblings if "rfilename" in one] if isinstance(siblings, list) else []
        return Revision(commit, tuple(names), bool(content.get("gated")))

    def model_files(self, repo: str, at: Revision, file: str) -> list[Listed]:
        """All files, in order, of the model that ``file`` means. Raises HubError, also where there is none."""
        entries: dict[str, Listed] = {} if at.names else self._tree(repo, at.commit)
        try:
            wanted = names_of_model(file, at.names or tuple(entries), f"{repo} at {at.commit}")
        except OperatorError as error:
            raise HubError(error.problems[0]) from None
        entries = entries or self._paths_info(repo, at.commit, wanted)
        listed = [entries.get(name, Listed(name, None, None)) for name in wanted]
        # Only a HEAD gives masked digests and files that were not listed, and shows whether this token may fetch.
        for index, one in enumerate(listed):
            if one.sha256 is None or one.size is None or (at.gated and index == 0):
                linked = self.linked(repo, at.commit, one.name)
                listed[index] = Listed(one.name, one.size or linked.size, one.sha256 or linked.sha256, one.blob)
        return listed

    def _paths_info(self, repo: str, commit: str, names: Sequence[str]) -> dict[str, Listed]:
        """Size and sha256 of some files, from the whole tree where the hub does not know this question."""
        url = f"{self.endpoint}/api/models/{repo}/paths-info/{commit}"
        try:
            content, dummy = self._client.json(
                "POST", url, Subject(repo, commit, names[0]), {"paths": list(names), "expand": "False"}
            )
        except HubError as error:
            if error.status in (404, 405, 501) and not error.code:
                return self._tree(repo, commit)
            raise
        return _entries(content)

    def _tree(self, repo: str, commit: str) -> dict[str, Listed]:
        """All files of a repository, over all pages."""
        found: dict[str, Listed] = {}
        url = f"{self.endpoint}/api/models/{repo}/tree/{commit}?recursive=true&expand=false"
        seen = set()
        while url and url not in seen:
            seen.add(url)
            content, url = self._client.json("GET", url, Subject(repo, commit))
            found.update(_entries(content))
        return found

    def linked(self, repo: str, revision: str, name: str) -> Linked:
        """The address of the file's bytes, by a HEAD that is not followed there."""
        subject = Subject(repo, revision, name)
        url = resolve_url(self.endpoint, repo, revision, name)
        for _hop in range(HOPS_MAX):
            response = self._client.ask("HEAD", url, subject)
            headers = response.headers
            size, sha256 = _number(headers.get("X-Linked-Size")), _digest(headers.get("X-Linked-Etag"))
            target = redirect(response, url)
            if target is None:
                # Some mirrors give the file itself: then the plain headers are those of the file.
                size = _number(headers.get("Content-Length")) if size is None else size
                return Linked(url, self._client.headers_for(url), size, sha256 or _digest(headers.get("ETag")))
            url = target
            if sha256 or origin(url) != origin(self.endpoint):
                return Linked(url, self._client.headers_for(url), size, sha256)
        text = f"the hub {self.endpoint} redirects {repo}/{name} more than {HOPS_MAX} times"
        raise HubError(Problem("endpoint", text, "Check endpoint and the proxy."))

    def source(self, repo: str, commit: str, name: str, sha256: str | None) -> Source:
        """The source for the fetch engine. It gets a new signature when the one it has expires."""
        url = resolve_url(self.endpoint, repo, commit, name)
        return Source(url, self._client.headers_for(url), self._fresh(repo, commit, name, sha256))

    def _fresh(
        self, repo: str, commit: str, name: str, sha256: str | None
    ) -> Callable[[], tuple[str, Mapping[str, str]]]:
        def fresh() -> tuple[str, Mapping[str, str]]:
            linked = self.linked(repo, commit, name)
            if sha256 and linked.sha256 and linked.sha256 != sha256:
                text = f"{name} has the sha256 {linked.sha256} on the hub now, and {sha256} is expected"
                raise HubError(Problem("", text, "Check whether the file was uploaded again."))
            return linked.url, linked.headers

        return fresh


def _entries(content: Any) -> dict[str, Listed]:
    """The files among the entries of tree and paths-info."""
    found = {}
    for one in content if isinstance(content, list) else []:
        if isinstance(one, dict) and one.get("type") == "file" and isinstance(one.get("path"), str):
            lfs = one.get("lfs") or {}
            size = lfs.get("size", one.get("size"))
            oid = str(one.get("oid"))
            found[one["path"]] = Listed(
                one["path"],
                size if isinstance(size, int) else None,
                _digest(lfs.get("oid")),
                oid if not lfs and is_commit(oid) else None,
            )
    return found


def _digest(text: Any) -> str | None:
    """The sha256 in an ETag or an oid; None for anything else, such as the 64 asterisks of a gated repository."""
    value = str(text or "").strip()
    value = (value[2:] if value.startswith("W/") else value).strip('"').lower()
    return value if is_sha256(value) else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
