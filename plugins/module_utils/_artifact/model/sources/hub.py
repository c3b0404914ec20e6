# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of a repository on a model hub (repo and file): what the hub, or the record of a file, says about it.

Private to gpufleet.llamacpp; may change at any time.

The hub is asked as little as possible: not at all where records hold the files of a full commit, once where they hold
those of the commit that a branch still has.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...._fetch.source import public_address
from ...._gguf.file import GgufError, split_paths
from ...._host.layout import MODEL_RECORDS
from ...._result import OperatorError, Problem
from ...file_record import FileRecord, is_current, last_record
from ...hub.access import HubAccess
from ...hub.naming import ENDPOINT, is_commit, is_pattern, resolve_url
from .remote import RemoteFiles, address_problems, mirrors_of
from .source import FileSpec, Identified, ModelAccess, parts_of


@dataclass(frozen=True)
class HubFile:
    """A file of the repository, by the hub or by a record."""

    name: str
    commit: str
    sha256: str | None
    size: int | None


@dataclass(frozen=True)
class HubFiles(RemoteFiles):
    """``file`` may be any part of the model, or a pattern; ``names`` are exact once ``commit`` is known.

    ``wrong``: what is wrong with the options.
    """

    repo: str
    file: str
    revision: str
    names: tuple[str, ...]
    mirrors: tuple[tuple[str, ...], ...]
    wrong: tuple[Problem, ...]
    access: HubAccess
    commit: str | None = None

    option = "repo"

    @classmethod
    def of(cls, params: Mapping[str, Any], files: Sequence[FileSpec], access: ModelAccess) -> HubFiles | None:
        """The source that the options give, if they give one of this kind."""
        if params["repo"] is None:
            return None
        endpoint = params["endpoint"] or access.environ.get("HF_ENDPOINT") or ENDPOINT
        hub = HubAccess(endpoint, params["token"], params["token_file"], params["ca_path"], access.ready, access.hide)
        file = params["file"] or ""
        names, problems = (file,) * len(files), _option_problems(endpoint, params["repo"], file, params["revision"])
        if not is_pattern(file):
            names, wrong = parts_of(file, len(files), "file", file)
            problems += wrong
        mirrors, wrong = mirrors_of(params, files)
        return cls(params["repo"], file, params["revision"], names, mirrors, (*problems, *wrong), hub)

    def shown(self, index: int) -> str:
        return public_address(self._url(index))

    def _url(self, index: int) -> str:
        return resolve_url(self.access.endpoint, self.repo, self.commit or self.revision, self.names[index])

    def problems(self) -> list[Problem]:
        return list(self.wrong)

    def engine_source(self, index: int, file: FileSpec) -> Any:
        if self.commit:
            return self.access.hub().source(self.repo, self.commit, self.names[index], file.sha256)
        from ...._fetch.engine import Source as EngineSource

        return EngineSource(self._url(index))

    def compares_addresses(self) -> bool:
        return self.commit is not None  # the address of a branch says nothing about the content

    def recorded(self, index: int, stamp: Sequence[int] | None) -> dict[str, Any]:
        commit = {"repo": self.repo, "file": self.names[index], "revision": self.commit} if self.commit else {}
        return {"url": self.shown(index), **commit}

    def renames(self, index: int, recorded: Mapping[str, Any]) -> bool:
        names = {"repo": self.repo, "file": self.names[index], "revision": self.commit}
        return self.commit is not None and any(recorded.get(key) != value for key, value in names.items())

    def identify(self, files: Sequence[FileSpec], *, verify: str, offline: bool) -> Identified:
        """The files with what the hub says about them, as far as it can be asked."""
        records = [last_record(file.path, MODEL_RECORDS) for file in files]
        known = self._recorded_files(records)
        if offline:
            return self._offline(files, known)
        current = all(record is not None and is_current(file.path, record) for file, record in zip(files, records))
        if current and self._is_answered(files, known, records, verify):
            return self._filled(files, known) if known else Identified(tuple(files), self)
        hub = self.access.hub()
        if hub is None:
            return Identified(tuple(files), self)
        try:
            at = hub.revision(self.repo, self.revision)
            if known and current and known[0].commit == at.commit:
                return self._filled(files, known)
            listed = hub.model_files(self.repo, at, self.file)
        except OperatorError as error:
            if known and current:
                # The files on the host are complete and verified, so a deployment goes on without the hub.
                kept = f"{error} The files that were fetched at {known[0].commit} are kept."
                return replace(self._filled(files, known), warnings=(kept,))
            return Identified(tuple(files), self, error.problems)
        if len(listed) != len(files):
            text = f"path names {len(files)} file(s), and file means {len(listed)} in the repository, {listed[0].name}"
            remedy = f"Both must be unsplit, or both a part of as many files (<name>-00001-of-{len(listed):05d}.gguf)."
            return Identified(tuple(files), self, (Problem("path", text, remedy),))
        return self._filled(
            files,
            [
                HubFile(one.name, at.commit, one.sha256 or _sha256_of_blob(file.path, one.size, one.blob), one.size)
                for file, one in zip(files, listed)
            ],
        )

    def _recorded_files(self, records: Sequence[FileRecord | None]) -> list[HubFile]:
        """The files by their records, if all are of this model and of one commit; else none."""
        found = []
        for record in records:
            said = record.source if record else {}
            commit = str(said.get("revision"))
            if record is None or said.get("repo") != self.repo or not is_commit(commit):
                return []
            found.append(HubFile(str(said.get("file")), commit, record.sha256, record.size))
        names = [one.name for one in found]
        try:
            whole = split_paths(names[0]) == names
            meant = (
                any(fnmatch.fnmatchcase(name, self.file) for name in names)
                if is_pattern(self.file)
                else split_paths(self.file) == names
            )
        except GgufError:
            return []
        return found if whole and meant and len({one.commit for one in found}) == 1 else []

    def _is_answered(
        self,
        files: Sequence[FileSpec],
        known: Sequence[HubFile],
        records: Sequence[FileRecord | None],
        verify: str,
    ) -> bool:
        """Whether records that are current make a question to the hub unnecessary."""
        digests = [file.sha256 for file in files]
        if known and known[0].commit != self.revision and is_commit(self.revision):
            return False  # the record has to name the pinned commit
        if None not in digests:
            # The operator gives the content; the hub is asked only to bring it again.
            same = digests == [record.sha256 if record else None for record in records]
            return same and (bool(known) or verify != "always")
        return bool(known) and known[0].commit == self.revision

    def _offline(self, files: Sequence[FileSpec], known: Sequence[HubFile]) -> Identified:
        """The content that the operator gives, else the one that was fetched from there before."""
        if known and self.revision != known[0].commit and is_commit(self.revision):
            known = []
        if known:
            return self._filled(files, known)
        if all(file.sha256 for file in files):
            return Identified(tuple(files), self)
        text = (
            f"no record holds the sha256 of {files[0].path}, as it was not fetched from {self.repo} "
            f"at {self.revision} before"
        )
        problem = Problem("offline", text, "Fetch it once without offline, or give its sha256.", files[0].path)
        return Identified(tuple(files), self, (problem,))

    def _filled(self, files: Sequence[FileSpec], known: Sequence[HubFile]) -> Identified:
        """The files with size and sha256, the source with names and commit, and every sha256 that differs."""
        found, problems = [], []
        for file, one in zip(files, known):
            if file.sha256 and one.sha256 and file.sha256 != one.sha256:
                text = (
                    f"{one.name} in {self.repo} at {one.commit} has the sha256 {one.sha256}, and {file.sha256} is "
                    "expected"
                )
                problems.append(Problem("sha256", text, "Check both, the revision and the sha256."))
            found.append(replace(file, sha256=file.sha256 or one.sha256, size=one.size))
        source = replace(self, names=tuple(one.name for one in known), commit=known[0].commit)
        return Identified(tuple(found), source, tuple(problems))


def _option_problems(endpoint: str, repo: str, file: str, revision: str) -> list[Problem]:
    problems = address_problems("endpoint", endpoint)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or ".." in repo:
        problems.append(Problem("repo", f"{repo!r} is not a repository", "Write it like unsloth/GLM-4.7-Flash-GGUF."))
    if not file.endswith(".gguf") or file.startswith("/") or ".." in file.split("/"):
        text = f"{file!r} is not the path of a .gguf file in the repository"
        remedy = "Write it like BF16/big-00001-of-00002.gguf, or give a pattern such as BF16/*.gguf."
        problems.append(Problem("file", text, remedy))
    if not revision.strip():
        problems.append(Problem("revision", "it is empty", "Give a branch, a tag or a commit, like main."))
    return problems


def _sha256_of_blob(path: str, size: int | None, blob: str | None) -> str | None:
    """The sha256 of the file on the host, if git's name of its content is ``blob``.

    The hub gives no sha256 of a file outside LFS. Such files are small.
    """
    try:
        if blob is None or os.stat(path).st_size != size:
            return None
        name, digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                name.update(block)
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest() if name.hexdigest() == blob else None
