# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model should be, what was seen of it, and what to do: the pure part of gguf_model.

Private to gpufleet.llamacpp; may change at any time.

A model is one GGUF file or all the parts of one split GGUF. model_observe.py looks, ``plan`` decides,
model_apply.py does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.gguf import Gguf, GgufError, split_paths
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.identity import (
    Identity,
    is_sha256,
    public_address,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.place import Room, lacks
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Action

# The record folder, beside the model's files.
RECORDS = ".gguf_model"


class ModelError(Exception):
    """A plan could not be carried out; what was in place still is. The message is a sentence for the operator."""


@dataclass(frozen=True)
class WantedFile:
    """One file of the model, and where it comes from if it has to be brought."""

    path: str
    url: str | None = None
    src: str | None = None
    sha256: str | None = None

    @property
    def origin(self) -> str | None:
        """The source as an operator may read it anywhere: without secrets."""
        return public_address(self.url) if self.url else self.src


@dataclass(frozen=True)
class Wanted:
    state: str  # present | absent
    verify: str  # changed | always | never
    files: tuple[WantedFile, ...]
    problems: tuple[str, ...] = ()  # what is wrong with the wish itself


@dataclass(frozen=True)
class SeenFile:
    """One file on the host. ``problems``: why it is no whole GGUF; ``holes``: what only the sha256 can excuse."""

    path: str
    kind: str = "absent"  # absent | file | other (a folder, a device, a file that may not be read)
    size: int = 0
    stamp: tuple[int, ...] = ()  # what identifies this state of the file without reading it
    problems: tuple[str, ...] = ()
    holes: tuple[str, ...] = ()
    gguf: Gguf | None = None  # not read where the record tells all
    record: Identity | None = None  # the last one, current or not
    trusted: bool = False  # the record is current
    sha256: str | None = None  # recorded and current, or read now
    read_since_ns: int | None = None  # when the reading began, if it was read now


@dataclass(frozen=True)
class Observed:
    files: tuple[SeenFile, ...]
    sources: tuple[SeenFile | None, ...]  # on this host; None where there is none, or nothing was asked of it
    set_problems: tuple[str, ...]
    room: Room
    leftovers: tuple[str, ...] = ()  # of interrupted runs; looked for where the model is to be removed


@dataclass(frozen=True)
class Plan:
    """``bring`` and ``record`` are indexes of the model's files; ``remove`` are those of files to remove."""

    refusals: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    bring: tuple[int, ...] = ()
    record: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()


def want(
    path: str,
    state: str = "present",
    verify: str = "changed",
    url: str | None = None,
    src: str | None = None,
    sha256: Sequence[str] = (),
) -> Wanted:
    """The wish in canonical form, split models expanded to all their parts; what is wrong with it is kept in it."""
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
    if not path.startswith("/") or path.endswith("/"):
        problems.append(f"path must be the absolute path of a file, and it is {path!r}.")
    urls: list[str | None] = [None] * len(paths)
    sources, digests = list(urls), list(urls)
    if state == "present":
        urls, sources = parts(url, len(paths)), parts(src, len(paths))
        problems += _wrong_sources(url, src)
        problems += _wrong_digests(sha256, len(paths))
        if len(sha256) == len(paths):
            digests = [digest.lower() for digest in sha256]
    files = tuple(WantedFile(*one) for one in zip(paths, urls, sources, digests))
    return Wanted(state, verify, files, tuple(problems))


def _wrong_sources(url: str | None, src: str | None) -> list[str]:
    problems = []
    if url is not None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            problems.append(f"url must be an http or https address, and it is {public_address(url)!r}.")
    if src is not None and not src.startswith("/"):
        problems.append(f"src must be an absolute path on the host, and it is {src!r}.")
    if url is not None and src is not None:
        problems.append("url and src are both given, and a model comes from one place.")
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


def plan(wanted: Wanted, observed: Observed) -> Plan:
    """What to do so that the host is as wanted, each with its reason, or every reason why not. Reads nothing."""
    wrong = [*wanted.problems, *(seen.problems[0] for seen in observed.files if seen.kind == "other")]
    if wanted.state == "absent":
        return _plan_removal(observed, wrong)
    reasons = [unfit(*pair) for pair in zip(wanted.files, observed.files)]
    for index, (file, source) in enumerate(zip(wanted.files, observed.sources)):
        reasons[index] = reasons[index] or _news(file, observed.files[index], source)
    # Parts that are each sound and do not belong together: which of them is wrong, nobody knows.
    if observed.set_problems and not any(reasons):
        reasons = [observed.set_problems[0]] * len(reasons)
    bring = tuple(index for index, reason in enumerate(reasons) if reason)
    refusals = dict.fromkeys([*wrong, *_refusals(wanted, observed, bring, reasons)])
    if refusals:
        return Plan(refusals=tuple(refusals))
    actions = []
    if bring and not observed.room.exists:
        actions.append(Action(f"Create the folder {observed.room.folder}", f"{observed.room.folder} is not there"))
    for index in bring:
        file = wanted.files[index]
        what = "Fetch" if file.url else "Copy"
        actions.append(Action(f"{what} {file.origin} to {file.path}", str(reasons[index])))
    record = tuple(
        index
        for index, (seen, source) in enumerate(zip(observed.files, observed.sources))
        if index not in bring and _is_news_to_record(seen, source)
    )
    return Plan(actions=tuple(actions), bring=bring, record=record)


def _plan_removal(observed: Observed, wrong: list[str]) -> Plan:
    remove = tuple(index for index, seen in enumerate(observed.files) if seen.kind != "absent")
    if (remove or observed.leftovers) and observed.room.problem:
        wrong = [*wrong, observed.room.problem]
    if wrong:
        return Plan(refusals=tuple(wrong))
    paths = [observed.files[index].path for index in remove] + list(observed.leftovers)
    return Plan(actions=tuple(Action(f"Remove {path}", "the wanted state is absent") for path in paths), remove=remove)


def _is_news_to_record(seen: SeenFile, source: SeenFile | None) -> bool:
    """Whether something was read that the next run need not read again."""
    read = seen.read_since_ns is not None or seen.gguf is not None or (source is not None and source.sha256 is not None)
    return seen.sha256 is not None and (read or not seen.trusted)


def unfit(file: WantedFile, seen: SeenFile) -> str | None:
    """Why the file on the host will not do, by itself."""
    if seen.kind == "absent":
        return f"{seen.path} is not there"
    if seen.problems:
        return seen.problems[0]
    proven = file.sha256 is not None and seen.sha256 == file.sha256
    if seen.holes and not proven:
        return seen.holes[0]
    if file.sha256 and seen.sha256 and not proven:
        return f"{seen.path} has the sha256 {seen.sha256}, and {file.sha256} is wanted"
    return None


def _news(file: WantedFile, seen: SeenFile, source: SeenFile | None) -> str | None:
    """Why a sound file without a wanted sha256 should be brought again: its source, or itself, is another now."""
    if file.sha256:
        return None
    if source is not None and source.kind == "file" and source.size != seen.size:
        return f"{source.path} has {source.size} bytes, and {seen.path} has {seen.size}"
    if source is not None and source.sha256 and seen.sha256 and source.sha256 != seen.sha256:
        return f"{source.path} has another content ({source.sha256}) than {seen.path} ({seen.sha256})"
    if not file.url or seen.record is None:
        return None
    came_from = seen.record.source.get("url") or seen.record.source.get("src")
    if came_from and came_from != file.origin:
        return f"{seen.path} came from {came_from}, and {file.origin} is wanted"
    if came_from and seen.sha256 and seen.sha256 != seen.record.sha256:
        return f"{seen.path} is no longer what came from {came_from}: its sha256 was {seen.record.sha256}"
    return None


def _refusals(wanted: Wanted, observed: Observed, bring: Sequence[int], reasons: Sequence[str | None]) -> list[str]:
    """Every reason why what has to be brought cannot be."""
    refusals: list[str] = []
    size = 0
    for index in bring:
        file, source = wanted.files[index], observed.sources[index]
        if observed.files[index].kind == "other":
            continue  # nothing can be brought to its place, whatever the source
        if file.origin is None or (file.src and source is None):
            reason = str(reasons[index]).rstrip(".")
            refusals.append(f"{reason}. No url or src says where to get it from.")
        elif source is not None:
            refusals += _wrong_source(file, source)
            size += source.size
    if bring and observed.room.problem:
        refusals.append(observed.room.problem)
    elif bring:
        # Of each file: itself, its record, and what it lies in until it is whole.
        refusals += lacks(observed.room, size, 2 * len(bring) + 2)
    return refusals


def _wrong_source(file: WantedFile, source: SeenFile) -> list[str]:
    if source.kind == "absent":
        return [f"{source.path} is not there; src must be a GGUF file on the host."]
    if source.problems:
        return list(source.problems)
    if source.sha256 and file.sha256 and source.sha256 != file.sha256:
        return [f"{source.path} has the sha256 {source.sha256}, and {file.sha256} is wanted. Check both."]
    return [] if file.sha256 else list(source.holes)


def shown(files: Sequence[SeenFile]) -> dict[str, Any]:
    """The model's files for one side of ``--diff``; None is what cannot be known yet."""
    return {seen.path: {"size": seen.size or None, "sha256": seen.sha256} for seen in files if seen.kind == "file"}
