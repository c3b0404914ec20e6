# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wanted model of a hub: the wish with the commit, names, sizes and digests that the hub, or the record, tells.

Private to gpufleet.llamacpp; may change at any time.

The hub is asked as little as possible: not at all where records say what a full commit holds, once where they say it of
the commit that a branch still is.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._gguf.file import GgufError, split_paths
from ..file_record import Identity, is_current, last_record
from .plan import RECORDS, ModelError
from .spec import HubFile, HubModel, Wanted, WantedFile, is_pattern, resolve_url


class Access:
    """The way to a hub, made when it is needed.

    ``ready`` tells whether there is what it takes to ask; ``hide`` is told the token, so that no result shows it.
    """

    def __init__(
        self,
        token: str | None,
        token_file: str | None,
        ca_path: str | None,
        ready: Callable[[], bool],
        hide: Callable[[str], object],
    ) -> None:
        self._token = token
        self._token_file = token_file
        self._ca_path = ca_path
        self._ready = ready
        self._hide = hide
        self._hub: Any = None

    def hub(self, model: HubModel) -> Any:
        """The hub.Hub of ``model``, or None where there is no way to ask now. Raises ModelError."""
        if self._hub is None and self._ready():
            from ..hub.hub import Hub

            self._hub = Hub(model.endpoint, self._secret(), self._ca_path)
        return self._hub

    def _secret(self) -> str | None:
        token, option = self._token, "token"
        if self._token_file:
            option = f"token_file {self._token_file}"
            try:
                with open(self._token_file, encoding="utf-8") as file:
                    token = file.read(4096)
            except (OSError, UnicodeDecodeError) as error:
                what = getattr(error, "strerror", None) or "it is no text"
                raise ModelError(
                    f"{option} cannot be read ({what}). It has to hold the hub's token, readable for the user "
                    f"{os.geteuid()}, which runs this task."
                ) from None
        if token is None:
            return None
        token = token.strip()
        if token:
            self._hide(token)
        if not re.fullmatch("[!-~]+", token):
            raise ModelError(f"{option} holds no token: it must be one word of printable ASCII characters.")
        return token


def is_offline(option: bool | None, environ: Mapping[str, str]) -> bool:
    """Whether the network may not be used; ``environ`` may say so as for the hub's own tools."""
    if option is None:
        return environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")
    return option


def resolve(wanted: Wanted, access: Access) -> Wanted:
    """The wish with what the hub tells, as far as it can be asked.

    What the hub refuses, and what it has that cannot be wanted, is among the ``problems`` of the wish. Raises
    ModelError.
    """
    wish = wanted.hub
    if wish is None or wanted.problems:
        return wanted
    records = [last_record(file.path, RECORDS) for file in wanted.files]
    known = _recorded(wish, records)
    if wanted.offline:
        return _offline(wanted, wish, known)
    current = all(record is not None and is_current(file.path, record) for file, record in zip(wanted.files, records))
    if current and _is_enough(wanted, wish, known, records):
        return _filled(wanted, wish, known) if known else wanted
    from ..hub.hub import HubError

    hub = access.hub(wish)
    if hub is None:
        return wanted
    try:
        at = hub.revision(wish.repo, wish.revision)
        if known and current and known[0].commit == at.commit:
            return _filled(wanted, wish, known)
        listed = hub.model_files(wish.repo, at, wish.file)
    except HubError as error:
        if known and current:
            # What is there is whole and was proven; that the hub is away is no reason to stop a deploy.
            kept = f"{error} What was fetched at {known[0].commit} is kept."
            return replace(_filled(wanted, wish, known), warnings=(*wanted.warnings, kept))
        return replace(wanted, problems=(*wanted.problems, str(error)))
    if len(listed) != len(wanted.files):
        problem = (
            f"path names {len(wanted.files)} file(s), {wanted.files[0].path}, and file means {len(listed)} in the "
            f"repository, {listed[0].name}. Both must be unsplit, or both a part of as many "
            f"(<name>-00001-of-{len(listed):05d}.gguf)."
        )
        return replace(wanted, problems=(*wanted.problems, problem))
    return _filled(
        wanted,
        wish,
        [
            WantedFile(
                "",
                sha256=one.sha256 or _of_blob(file.path, one.size, one.blob),
                size=one.size,
                hub=HubFile(wish.repo, one.name, at.commit),
            )
            for file, one in zip(wanted.files, listed)
        ],
    )


def _of_blob(path: str, size: int | None, blob: str | None) -> str | None:
    """The sha256 of the file on the host, if git would name its content ``blob``; the hub tells no other digest then.

    Such files are small: larger ones are in LFS.
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


def _recorded(wish: HubModel, records: Sequence[Identity | None]) -> list[WantedFile]:
    """What the records say of the files of this wish, all at one commit; empty where they do not."""
    found = []
    for record in records:
        said = record.source if record else {}
        hub = HubFile(str(said.get("repo")), str(said.get("file")), str(said.get("revision")))
        if record is None or hub.repo != wish.repo or not _is_commit(str(hub.revision)):
            return []
        found.append(WantedFile("", sha256=record.sha256, size=record.size, hub=hub))
    names = [one.hub.file for one in found if one.hub]
    try:
        whole = split_paths(names[0]) == names
        meant = (
            any(fnmatch.fnmatchcase(name, wish.file) for name in names)
            if is_pattern(wish.file)
            else split_paths(wish.file) == names
        )
    except GgufError:
        return []
    return found if whole and meant and len({one.commit for one in found}) == 1 else []


def _is_commit(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def _is_enough(wanted: Wanted, wish: HubModel, known: Sequence[WantedFile], records: Sequence[Identity | None]) -> bool:
    """Whether what is recorded, and still so, answers the wish without the hub."""
    digests = [file.sha256 for file in wanted.files]
    if known and known[0].commit != wish.revision and _is_commit(wish.revision):
        return False  # the record is to name the commit that is pinned
    if None not in digests:
        # The operator says which content is wanted; where it came from is asked only to bring it again.
        same = digests == [record.sha256 if record else None for record in records]
        return same and (bool(known) or wanted.verify != "always")
    return bool(known) and known[0].commit == wish.revision


def _offline(wanted: Wanted, wish: HubModel, known: Sequence[WantedFile]) -> Wanted:
    """What must be there is what the operator says, else what was fetched from there before."""
    if known and wish.revision != known[0].commit and _is_commit(wish.revision):
        known = []
    if known:
        return _filled(wanted, wish, known)
    if all(file.sha256 for file in wanted.files):
        return wanted
    problem = (
        f"offline is set, and nothing recorded says what {wanted.files[0].path} has to be: it was not fetched from "
        f"{wish.repo} at {wish.revision} before. Fetch it once without offline, or give its sha256."
    )
    return replace(wanted, problems=(*wanted.problems, problem))


def _filled(wanted: Wanted, wish: HubModel, known: Sequence[WantedFile]) -> Wanted:
    """The wish with commit, name, size and sha256 of each file, and what the operator's sha256 has against them."""
    files, problems = [], []
    for file, one in zip(wanted.files, known):
        if one.hub is None or one.hub.revision is None:
            continue
        if file.sha256 and one.sha256 and file.sha256 != one.sha256:
            problems.append(
                f"{one.hub.file} in {wish.repo} at {one.hub.revision} has the sha256 {one.sha256}, and {file.sha256} "
                "is wanted. Check both, the revision and the digest."
            )
        url = resolve_url(wish.endpoint, wish.repo, one.hub.revision, one.hub.file)
        files.append(replace(file, url=url, sha256=file.sha256 or one.sha256, size=one.size, hub=one.hub))
    return replace(wanted, files=tuple(files), problems=(*wanted.problems, *problems))
