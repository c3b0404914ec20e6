# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants a model to be: the wish in canonical form, and what is wrong with it.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from ..._fetch.source import public_address
from ..._gguf.file import GgufError, split_paths
from ..file_record import is_sha256

ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of a model hub; ``revision`` is its full commit, None while the hub was not asked."""

    repo: str
    file: str
    revision: str | None = None


@dataclass(frozen=True)
class HubModel:
    """A model in a repository of a model hub, as the operator names it: ``file`` may be any part, or a pattern."""

    endpoint: str
    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True)
class WantedFile:
    """One file of the model, and where it comes from if it has to be brought. ``size`` in bytes, where it is known."""

    path: str
    url: str | None = None
    src: str | None = None
    sha256: str | None = None
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    hub: HubFile | None = None

    @property
    def origin(self) -> str | None:
        """The source as an operator may read it anywhere: without secrets."""
        return public_address(self.url) if self.url else self.src

    @property
    def commit(self) -> str | None:
        """The commit of the hub's file, once it is known."""
        return self.hub.revision if self.hub else None


@dataclass(frozen=True)
class Wanted:
    state: str  # present | absent
    verify: str  # changed | always | never
    files: tuple[WantedFile, ...]
    problems: tuple[str, ...] = ()  # what is wrong with the wish itself
    hub: HubModel | None = None
    offline: bool = False
    warnings: tuple[str, ...] = ()  # what the operator should know, and what stops nothing


def want(
    path: str,
    state: str = "present",
    verify: str = "changed",
    url: str | None = None,
    src: str | None = None,
    sha256: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    hub: HubModel | None = None,
    offline: bool = False,
) -> Wanted:
    """The wish in canonical form, split models expanded to all their parts; what is wrong with it is kept in it.

    What only the hub can tell (the names that a pattern means, commit, sizes, digests) is filled in by model_hub.py.
    """
    problems: list[str] = []

    def parts(value: str | None, count: int) -> list[str | None]:
        if value is None:
            return [None] * count
        try:
            found: list[str | None] = list(split_paths(value))
        except GgufError as error:
            problems.append(str(error))
            return [value] * count
        if len(found) != count:
            shown = public_address(value) if "://" in value else value
            problems.append(
                f"path names {count} file(s), {path}, and the source {len(found)}, {shown}. Both must be unsplit, or "
                "both the same part of a split model (<name>-00001-of-00003.gguf)."
            )
            return [value] * count
        return found

    try:
        paths = split_paths(path)
    except GgufError as error:
        problems.append(str(error))
        paths = [path]
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
        problems.append(f"path must be the absolute path of a file, without '..', and it is {path!r}.")
    urls: list[str | None] = [None] * len(paths)
    sources, digests = list(urls), list(urls)
    if state == "present":
        urls, sources = parts(url, len(paths)), parts(src, len(paths))
        problems += _wrong_sources(url, src, hub)
        problems += _wrong_mirrors(mirrors, url, hub, sha256)
        problems += _wrong_digests(sha256, len(paths))
        if len(sha256) == len(paths):
            digests = [digest.lower() for digest in sha256]
    else:
        mirrors, hub = (), None
    more = [parts(_of_folder(mirror, paths[0]), len(paths)) for mirror in mirrors]
    files = [
        WantedFile(*one, mirrors=tuple(str(mirror[index]) for mirror in more))
        for index, one in enumerate(zip(paths, urls, sources, digests))
    ]
    if hub is not None and url is None and src is None:
        names = [hub.file] * len(files) if is_pattern(hub.file) else [str(name) for name in parts(hub.file, len(files))]
        files = [_at_hub(file, hub, name) for file, name in zip(files, names)]
    return Wanted(state, verify, tuple(files), tuple(problems), hub, offline)


def hub_model(
    repo: str | None, file: str | None, revision: str, endpoint: str | None, environ: Mapping[str, str]
) -> HubModel | None:
    """The hub's model of these options; ``environ`` may name the hub, as for the hub's own tools."""
    if repo is None:
        return None
    return HubModel(endpoint or environ.get("HF_ENDPOINT") or ENDPOINT, repo, file or "", revision)


def is_pattern(file: str) -> bool:
    """Whether the name stands for what matches it."""
    return any(one in file for one in "*?[")


def resolve_url(endpoint: str, repo: str, revision: str, file: str) -> str:
    """The address under which a hub gives a file to everybody who may have it."""
    return f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def _at_hub(file: WantedFile, hub: HubModel, name: str) -> WantedFile:
    url = resolve_url(hub.endpoint, hub.repo, hub.revision, name)
    return replace(file, url=url, hub=HubFile(hub.repo, name))


def _of_folder(mirror: str, path: str) -> str:
    """The address of a mirror's file; one that ends with a slash is a folder with the model's own file names."""
    return mirror + quote(path.rpartition("/")[2]) if mirror.endswith("/") else mirror


def _wrong_address(option: str, url: str) -> list[str]:
    address = urlsplit(url)
    if address.scheme in ("http", "https") and address.hostname:
        return []
    return [f"{option} must be an http or https address, and it is {public_address(url)!r}."]


def _wrong_sources(url: str | None, src: str | None, hub: HubModel | None) -> list[str]:
    problems = [] if url is None else _wrong_address("url", url)
    if src is not None and not src.startswith("/"):
        problems.append(f"src must be an absolute path on the host, and it is {src!r}.")
    if hub is not None:
        problems += _wrong_hub(hub)
    given = [name for name, value in (("url", url), ("src", src), ("repo", hub)) if value is not None]
    if len(given) > 1:
        number = "both" if len(given) == 2 else "all"
        problems.append(f"{' and '.join(given)} are {number} given, and a model comes from one place.")
    return problems


def _wrong_hub(hub: HubModel) -> list[str]:
    problems = _wrong_address("endpoint", hub.endpoint)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub.repo) or ".." in hub.repo:
        problems.append(f"repo must be like unsloth/GLM-4.7-Flash-GGUF, and it is {hub.repo!r}.")
    if not hub.file.endswith(".gguf") or hub.file.startswith("/") or ".." in hub.file.split("/"):
        problems.append(
            f"file must be a path in the repository that ends with .gguf, like BF16/big-00001-of-00002.gguf, or a "
            f"pattern of one, and it is {hub.file!r}."
        )
    if not hub.revision.strip():
        problems.append("revision is empty; it must be a branch, a tag or a commit, like main.")
    return problems


def _wrong_mirrors(mirrors: Sequence[str], url: str | None, hub: HubModel | None, sha256: Sequence[str]) -> list[str]:
    problems = [problem for mirror in mirrors for problem in _wrong_address("mirrors", mirror)]
    if mirrors and hub is None and url is None:
        problems.append("mirrors are given, and neither repo nor url is: they are mirrors of it.")
    elif mirrors and hub is None and not sha256:
        problems.append("mirrors are given without sha256; nothing else tells that they hold the same file as url.")
    return problems


def _wrong_digests(sha256: Sequence[str], files: int) -> list[str]:
    problems = [
        f"sha256 must have 64 hexadecimal digits, and it is {digest!r} ({len(digest)} characters)."
        for digest in sha256
        if not is_sha256(digest.lower())
    ]
    if sha256 and len(sha256) != files:
        problems.append(
            f"sha256 has {len(sha256)} digest(s), and the model has {files} file(s): one for each, in order."
        )
    return problems
