# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out the plan for a model: bring its files, verify them, put them in place, record them.

Private to gpufleet.llamacpp; may change at any time.

Nothing in place is touched before every new file is complete, verified and synced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..._fetch import reserve
from ..._fetch.source import FetchError
from ..._gguf import file as gguf_file
from ..._host.files import sync_folder
from ..._host.layout import MODEL_RECORDS
from ..._result import OperatorError, Problem
from .. import file_record, staging
from ..downloads import Downloads
from ..seen_file import not_recorded
from ..staging import Staged
from .decide import ModelDecision
from .describe import READER
from .observe import staged_sha256
from .plan import is_renamed
from .seen import SeenGguf, look
from .spec import ModelSource, ModelSpec

NOT_KEPT = "Nothing of it was kept."


@dataclass(frozen=True)
class AppliedModel:
    """The model's files now. ``downloads`` is the engine's Fetched of each file that came over the network."""

    files: tuple[SeenGguf, ...]
    downloads: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _NewFile:
    """One new file, complete and synced, before it is in its place."""

    staged: Staged
    gguf: gguf_file.Gguf


def apply(decision: ModelDecision, downloads: Downloads) -> AppliedModel:
    """Carry out the plan. Raises OperatorError; the files in place are the same then."""
    spec = decision.spec
    downloads.progress.expect({spec.files[index].path: spec.files[index].size for index in decision.plan.bring})
    try:
        return _carry_out(decision, downloads)
    except OperatorError:
        done = _done_by_another(decision)
        if done is None:
            raise
        return done


def _carry_out(decision: ModelDecision, downloads: Downloads) -> AppliedModel:
    try:
        if decision.spec.state == "absent":
            return _remove(decision)
        new: dict[int, _NewFile] = {}
        if decision.spec.source and decision.plan.bring:
            _reserve(decision, decision.spec.source, downloads)
            new = _stage(decision, decision.spec.source, downloads)
        return _record(decision, _install(decision, new), new)
    except OSError as error:
        raise staging.refused_by_host(error) from error


def _done_by_another(decision: ModelDecision) -> AppliedModel | None:
    """The files in place, if another run with the same options was first and they are as specified now.

    Runs share the parts that arrived and take no lock; the first one moves them away.
    """
    files = decision.spec.files
    if not decision.plan.bring or not all(file.sha256 and os.path.isfile(file.path) for file in files):
        return None
    try:
        found = tuple(look(file.path) for file in files)
    except (file_record.FileChanged, OSError):
        return None
    return AppliedModel(found) if all(seen.sha256 == file.sha256 for seen, file in zip(found, files)) else None


def _remove(decision: ModelDecision) -> AppliedModel:
    seen = decision.seen
    # The first part goes first: without it the others are no model, whatever interrupts this.
    for index in decision.plan.remove:
        os.unlink(seen.files[index].path)
    for path in seen.leftovers:
        _discard(path)
    for one in seen.files:
        file_record.forget(one.path, MODEL_RECORDS)
    if decision.plan.actions:
        sync_folder(seen.space.folder)
    return AppliedModel(tuple(SeenGguf(one.path) for one in seen.files))


def _reserve(decision: ModelDecision, source: ModelSource, downloads: Downloads) -> None:
    """Reserve the space of all files before the first byte is fetched. The plan checked the space for copies.

    The engine reserves the space of a single file itself.
    """
    bring, files = decision.plan.bring, decision.spec.files
    if len(bring) < 2 or not source.is_remote:
        return
    found = [
        source.need(index, files[index], _incoming(files[index].path), downloads)
        for index in bring
        if not staged_sha256(files[index])
    ]
    problems = staging.lacks(decision.seen.space, sum(map(reserve.remaining, found)), 0)
    if problems:
        raise OperatorError(*(replace(problem, option="path") for problem in problems))
    incoming = os.path.dirname(_incoming(files[0].path))
    os.makedirs(incoming, mode=0o755, exist_ok=True)
    try:
        reserve.reserve(found)
    except FetchError as error:
        staging.tidy(incoming)
        raise OperatorError(*(replace(problem, option="path") for problem in error.problems)) from error


def _stage(decision: ModelDecision, source: ModelSource, downloads: Downloads) -> dict[int, _NewFile]:
    """All new files, each verified by itself, and all of them verified to be one model."""
    spec, new = decision.spec, {}
    for index in decision.plan.bring:
        os.makedirs(os.path.dirname(_incoming(spec.files[index].path)), mode=0o755, exist_ok=True)
        try:
            new[index] = _bring(spec, index, source, downloads)
        except BaseException:
            _give_up(spec, source, new)
            raise
    _verify_set(decision, new)
    return new


def _verify_set(decision: ModelDecision, new: dict[int, _NewFile]) -> None:
    parts = []
    for index, (file, seen) in enumerate(zip(decision.spec.files, decision.seen.files)):
        part = new[index].gguf if index in new else seen.gguf or gguf_file.read(file.path)
        parts.append(replace(part, path=file.path))
    problems = gguf_file.check_set(parts)
    if problems:
        for one in new.values():
            _discard(one.staged.path)
        raise OperatorError(*problems)


def _bring(spec: ModelSpec, index: int, source: ModelSource, downloads: Downloads) -> _NewFile:
    file = spec.files[index]
    place = _incoming(file.path)
    kept = staged_sha256(file) if source.is_remote else None
    if kept:
        downloads.progress.learn(file.path, os.path.getsize(place), here=True)
        return _NewFile(Staged(place, kept), gguf_file.read(place, source.shown(index)))
    staged = source.fetch(index, file, place, downloads)
    shown = source.shown(index)
    try:
        if file.sha256 and staged.sha256 != file.sha256:
            text = f"{shown} has the sha256 {staged.sha256}, and {file.sha256} is expected"
            raise OperatorError(Problem("sha256", text, f"Check both. {NOT_KEPT}"))
        try:
            found = gguf_file.read(staged.path, shown)
        except gguf_file.GgufError as error:
            raise _not_whole(source, error.problems) from error
        problems = gguf_file.check_length(found)
        if problems:
            raise _not_whole(source, problems)
    except BaseException:
        _discard(staged.path)
        raise
    os.chmod(staged.path, 0o644)  # servers run as other users than the one that brought it
    file_record.settle(staged.path)
    if len(spec.files) > 1 and source.is_remote:
        # If a later part fails, the next run does not fetch this one again.
        file_record.record(staged.path, MODEL_RECORDS, staged.sha256, _source_of_new(source, index, staged, None))
    return _NewFile(staged, found)


def _not_whole(source: ModelSource, problems: Sequence[Problem]) -> OperatorError:
    return OperatorError(*(replace(one, option=source.option, remedy=f"{one.remedy} {NOT_KEPT}") for one in problems))


def _give_up(spec: ModelSpec, source: ModelSource, new: dict[int, _NewFile]) -> None:
    """Copies are discarded; fetched parts are kept for the next run."""
    for one in new.values():
        if not source.is_remote:
            _discard(one.staged.path)
    staging.tidy(os.path.dirname(_incoming(spec.files[0].path)))


def _discard(path: str) -> None:
    with suppress(OSError):
        file_record.forget(path, MODEL_RECORDS)
    staging.discard(path)


def _incoming(path: str) -> str:
    return staging.incoming_path(path, MODEL_RECORDS)


def _install(decision: ModelDecision, new: dict[int, _NewFile]) -> list[SeenGguf]:
    """Put the new files in place. The first part comes last: while it is missing, the others are no model."""
    files, specs = list(decision.seen.files), decision.spec.files
    for index in sorted(new, reverse=True):
        one, path = new[index], specs[index].path
        staging.install(one.staged.path, path)
        file_record.forget(one.staged.path, MODEL_RECORDS)
        gguf = replace(one.gguf, path=path)
        seen = SeenGguf(path, True, True, gguf.size, sha256=one.staged.sha256)
        files[index] = replace(seen, gguf=gguf)
    if new:
        staging.tidy(os.path.dirname(_incoming(specs[0].path)))
    return files


def _record(decision: ModelDecision, files: list[SeenGguf], new: dict[int, _NewFile]) -> AppliedModel:
    """Record the new files, and those that were read again; a folder that takes no record costs only time."""
    warnings = []
    # The record of the first part holds the summary of the whole model.
    for index in sorted({*decision.plan.bring, *decision.plan.record, *([0] if new else [])}):
        seen = files[index]
        if seen.sha256 is None:
            continue
        details = {}
        if index == 0:
            parts = [one.gguf or gguf_file.read(one.path) for one in files]
            details = {"reader": READER, "summary": gguf_file.summary(parts)}
        if index in new and decision.spec.source:
            since: int | None = time.time_ns()
            source = _source_of_new(decision.spec.source, index, new[index].staged, decision.seen.sources[index])
        else:
            since, source = seen.known_since_ns, _source_of_kept(decision, index)
        try:
            record = file_record.record(seen.path, MODEL_RECORDS, seen.sha256, source, details, since)
        except OSError as error:
            warnings.append(not_recorded(seen.path, error))
            continue
        files[index] = replace(seen, record=record, trusted=True)
    downloads = tuple(one.staged.download for one in new.values() if one.staged.download)
    return AppliedModel(tuple(files), downloads, tuple(warnings))


def _source_of_new(source: ModelSource, index: int, staged: Staged, seen: SeenGguf | None) -> dict[str, Any]:
    """The source of a new file for its record. The validator identifies its version at the server."""
    validator = {"validator": staged.validator} if staged.download else {}
    return {**source.recorded(index, seen.stamp if seen else None), **validator}


def _source_of_kept(decision: ModelDecision, index: int) -> dict[str, Any]:
    """The source of a file that stays: of the last record, if that is of this content, or the file that it equals."""
    source, file = decision.spec.source, decision.spec.files[index]
    seen, other = decision.seen.files[index], decision.seen.sources[index]
    if source and (is_renamed(source, index, file, seen) or (other is not None and other.sha256 == seen.sha256)):
        return source.recorded(index, other.stamp if other else None)
    return seen.record.source if seen.record and seen.record.sha256 == seen.sha256 else {}
