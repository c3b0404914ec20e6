# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model hub that speaks the protocol of huggingface.co: revisions, files with size and sha256, addresses to fetch.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

from ..._fetch.http_range import REDIRECTS
from ..._fetch.source import FetchError, Source, origin
from ..._gguf.file import GgufError, split_paths
from ..file_record import is_sha256
from ..model.spec import is_pattern, resolve_url
from .client import HOPS_MAX, HubClient, HubError, Subject

__all__ = ["Hub", "HubError", "Listed", "Revision", "is_commit", "names_of_model"]

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Revision:
    """A repository at one commit (40 hex); ``names`` of its files; ``gated``: not everybody may fetch."""

    commit: str
    names: tuple[str, ...]
    gated: bool


@dataclass(frozen=True)
class Listed:
    """A file of a repository; ``sha256`` is None where the hub does not tell it (a small file outside LFS).

    ``blob`` is what git names the content of such a file by (40 hex).
    """

    name: str
    size: int | None
    sha256: str | None
    blob: str | None = None


@dataclass(frozen=True)
class Linked:
    """Where a file's bytes are now, signed for a while, and what the hub says they are."""

    url: str
    headers: Mapping[str, str]
    size: int | None
    sha256: str | None


def is_commit(revision: str) -> bool:
    """Whether the revision is a full commit, which always means the same files."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def names_of_model(file: str, names: Sequence[str]) -> list[str]:
    """The files, first part first, of the one model that ``file`` (a name, any part, or a pattern) means.

    Raises ValueError in words where ``names`` has none, not all, or more than one of it.
    """
    found = sorted(name for name in names if name.endswith(".gguf") and fnmatch.fnmatchcase(name, file))
    if not is_pattern(file) or (not found and file in names):
        found = [file]
    models: dict[str, list[str]] = {}
    for name in found:
        try:
            parts = split_paths(name)
        except GgufError as error:
            raise ValueError(str(error)) from None
        models[parts[0]] = parts
    if len(models) > 1:
        raise ValueError(f"{file} means {len(models)} models: {_some(sorted(models))}. Narrow the pattern to one.")
    wanted = next(iter(models.values()), [file])
    missing = [name for name in wanted if name not in names]
    if missing and len(missing) == len(wanted):
        raise ValueError(f"There is no file {file}. {_near(file, names)}")
    if missing:
        raise ValueError(f"Of the split model {wanted[0]} there is no {_some(missing)}: it was not uploaded whole.")
    return wanted


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _near(file: str, names: Sequence[str]) -> str:
    models = [name for name in names if name.endswith(".gguf")]
    if not models:
        return "The repository has no GGUF file at all; their repositories often end in -GGUF."
    plain = {name.rpartition("/")[2].lower(): name for name in models}
    wanted = file.rpartition("/")[2].lower()
    near = [plain[one] for one in difflib.get_close_matches(wanted, plain, NAMES_SHOWN, 0.6)]
    return f"Near it: {', '.join(near)}." if near else f"There are: {_some(models)}."


class Hub:
    """What a hub says about its repositories; asks at most once for each thing. Raises HubError."""

    def __init__(self, endpoint: str, token: str | None = None, ca_path: str | None = None) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._client = HubClient(self.endpoint, token, ca_path)

    @property
    def asked(self) -> int:
        """The number of requests so far."""
        return self._client.asked

    def revision(self, repo: str, revision: str) -> Revision:
        """The commit that the revision is now, and the names of its files."""
        subject = Subject(repo, revision)
        url = f"{self.endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}"
        content, dummy = self._client.json("GET", url, subject)
        commit = content.get("sha") if isinstance(content, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise HubError(
                f"{url} names no commit, so {self.endpoint} is no model hub, or one of another kind. Check endpoint."
            )
        siblings = content.get("siblings")
        names = [one["rfilename"] for one in siblings if "rfilename" in one] if isinstance(siblings, list) else []
        return Revision(commit, tuple(names), bool(content.get("gated")))

    def model_files(self, repo: str, at: Revision, file: str) -> list[Listed]:
        """All files, first part first, of the model that ``file`` means. Raises HubError, also where there is none."""
        entries: dict[str, Listed] = {}
        names = at.names
        try:
            if not names:
                entries = self._tree(repo, at.commit)
                names = tuple(entries)
            wanted = names_of_model(file, names)
        except ValueError as error:
            raise HubError(f"{repo} at {at.commit}: {error}", 404, "EntryNotFound") from None
        entries = entries or self._paths_info(repo, at.commit, wanted)
        listed = [entries.get(name, Listed(name, None, None)) for name in wanted]
        # Masked digests, files the hub did not list, and whether this token may fetch at all: only a HEAD tells.
        for index, one in enumerate(listed):
            if one.sha256 is None or one.size is None or (at.gated and index == 0):
                linked = self.linked(repo, at.commit, one.name)
                listed[index] = Listed(one.name, one.size or linked.size, one.sha256 or linked.sha256, one.blob)
        return listed

    def _paths_info(self, repo: str, commit: str, names: Sequence[str]) -> dict[str, Listed]:
        """Size and sha256 of some files; a hub that does not know the question gives its whole tree instead."""
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
        """Where the file's bytes are now: what HEAD says, without going there."""
        subject = Subject(repo, revision, name)
        url = resolve_url(self.endpoint, repo, revision, name)
        for _hop in range(HOPS_MAX):
            response = self._client.ask("HEAD", url, subject)
            headers = response.headers
            size, sha256 = _number(headers.get("X-Linked-Size")), _digest(headers.get("X-Linked-Etag"))
            if response.status_code not in REDIRECTS or not headers.get("Location"):
                # Given at once, as some mirrors do: then the plain headers are those of the file.
                size = _number(headers.get("Content-Length")) if size is None else size
                return Linked(url, self._client.headers_for(url), size, sha256 or _digest(headers.get("ETag")))
            url = urljoin(url, headers["Location"])
            if sha256 or origin(url) != origin(self.endpoint):
                return Linked(url, self._client.headers_for(url), size, sha256)
        raise HubError(f"The hub {self.endpoint} leads from one address of {repo}/{name} to the next without end.")

    def source(self, repo: str, commit: str, name: str, sha256: str | None) -> Source:
        """Where the engine fetches the file; it has itself a fresh signature when the one it had expired."""
        url = resolve_url(self.endpoint, repo, commit, name)
        return Source(url, self._client.headers_for(url), self._fresh(repo, commit, name, sha256))

    def _fresh(
        self, repo: str, commit: str, name: str, sha256: str | None
    ) -> Callable[[], tuple[str, Mapping[str, str]]]:
        def fresh() -> tuple[str, Mapping[str, str]]:
            linked = self.linked(repo, commit, name)
            if sha256 and linked.sha256 and linked.sha256 != sha256:
                raise FetchError(f"the hub now says that {name} has the sha256 {linked.sha256}, and {sha256} is wanted")
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
    """A sha256 out of an ETag or an oid; None for what is none, such as the 64 asterisks of a gated repository."""
    value = str(text or "").strip()
    value = (value[2:] if value.startswith("W/") else value).strip('"').lower()
    return value if is_sha256(value) else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
