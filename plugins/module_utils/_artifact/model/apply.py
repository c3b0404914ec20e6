# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out the plan for a model: bring its files, prove them, put them in place, record them.

Private to gpufleet.llamacpp; may change at any time.

Nothing in place is touched before every new file is whole, proven and synced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..._fetch import reserve as space
from ..._fetch.progress import ProgressFile
from ..._fetch.source import FetchError
from ..._gguf import file as header
from .. import file_record, staging
from . import fetch as model_fetch
from .observe import READER, look, origin_of
from .plan import RECORDS, ModelError, Observed, Plan, SeenFile, is_at_another_commit
from .spec import Wanted, WantedFile


@dataclass(frozen=True)
class Staged:
    """One new file, whole and synced, before it is in its place."""

    path: str
    sha256: str
    gguf: header.Gguf
    transfer: Any = None  # fetch.Fetched, where it came over the network


@dataclass(frozen=True)
class Applied:
    files: tuple[SeenFile, ...]
    transfers: tuple[Any, ...] = ()  # fetch.Fetched of each file that came over the network
    warnings: tuple[str, ...] = ()


# Brings one file from its url to a path and returns fetch.Fetched; raises ModelError.
Fetch = Callable[[WantedFile, str], Any]
# What fetching a file to a path takes of the disk; raises ModelError.
Needs = Callable[[WantedFile, str], space.Need]


def apply(
    wanted: Wanted, observed: Observed, steps: Plan, fetch: Fetch, needs: Needs, progress: ProgressFile | None = None
) -> Applied:
    """Carry out the plan. Raises ModelError in words."""
    progress = progress or ProgressFile(None)
    progress.expect({wanted.files[index].path: wanted.files[index].size for index in steps.bring})
    try:
        return _carry_out(wanted, observed, steps, fetch, needs, progress)
    except ModelError:
        done = _done_by_another(wanted, steps)
        if done is None:
            raise
        return done


def _carry_out(
    wanted: Wanted, observed: Observed, steps: Plan, fetch: Fetch, needs: Needs, progress: ProgressFile
) -> Applied:
    try:
        if wanted.state == "absent":
            return _remove(observed, steps)
        _check_room(wanted, observed, steps, needs)
        staged = _stage(wanted, observed, steps, fetch, progress)
        files = _install(wanted, observed, staged)
        return _record(wanted, observed, steps, files, staged)
    except (staging.PlaceError, file_record.FileChanged) as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ModelError(f"The host refused: {error.strerror or error}{where}. What was in place still is.") from error


def _done_by_another(wanted: Wanted, steps: Plan) -> Applied | None:
    """The files in place, where they are what is wanted by now: another run that was at the same was first.

    Runs share what has arrived and need no lock; who is first takes it away from the others.
    """
    if not steps.bring or not all(file.sha256 and os.path.isfile(file.path) for file in wanted.files):
        return None
    try:
        files = tuple(look(file.path) for file in wanted.files)
    except (file_record.FileChanged, OSError):
        return None
    there = all(seen.sha256 == file.sha256 for seen, file in zip(files, wanted.files))
    return Applied(files) if there else None


def _remove(observed: Observed, steps: Plan) -> Applied:
    # The first part goes first: without it the others are no model, whatever interrupts this.
    for index in steps.remove:
        os.unlink(observed.files[index].path)
    for path in observed.leftovers:
        _throw_away(path)
    for seen in observed.files:
        file_record.forget(seen.path, RECORDS)
    if steps.actions:
        staging.sync_folder(observed.room.folder)
    return Applied(tuple(SeenFile(seen.path) for seen in observed.files))


def _check_room(wanted: Wanted, observed: Observed, steps: Plan, needs: Needs) -> None:
    """Whether all that is to be fetched has room, before the first byte of it. The plan did this for copies.

    One file alone is not asked for: the engine reserves its space at the start.
    """
    if len(steps.bring) < 2 or not wanted.files[0].url:
        return
    found = []
    for index in steps.bring:
        file = wanted.files[index]
        path = staging.incoming_path(file.path, RECORDS)
        if not model_fetch.kept(file, path):
            found.append(needs(file, path))
    problems = staging.lacks(observed.room, sum(map(space.remaining, found)), 0)
    if problems:
        raise ModelError(" ".join(problems))
    incoming = os.path.dirname(staging.incoming_path(wanted.files[0].path, RECORDS))
    os.makedirs(incoming, mode=0o755, exist_ok=True)
    try:
        space.reserve(found)
    except FetchError:
        staging.tidy(incoming)
        raise


def _stage(wanted: Wanted, observed: Observed, steps: Plan, fetch: Fetch, progress: ProgressFile) -> dict[int, Staged]:
    """All the new files, each proven by itself, and all of them proven to be one model."""
    staged: dict[int, Staged] = {}
    for index in steps.bring:
        file = wanted.files[index]
        os.makedirs(os.path.dirname(staging.incoming_path(file.path, RECORDS)), mode=0o755, exist_ok=True)
        try:
            staged[index] = _bring(file, fetch, progress, several=len(wanted.files) > 1)
        except BaseException:
            _give_up(wanted, staged)
            raise
    if staged:
        _prove_together(wanted, observed, staged)
    return staged


def _prove_together(wanted: Wanted, observed: Observed, staged: dict[int, Staged]) -> None:
    parts = []
    for index, (file, seen) in enumerate(zip(wanted.files, observed.files)):
        part = staged[index].gguf if index in staged else seen.gguf or header.read(file.path)
        parts.append(replace(part, path=file.path))
    problems = header.check_set(parts)
    if problems:
        for one in staged.values():
            _throw_away(one.path)
        raise ModelError(" ".join(problems))


def _bring(file: WantedFile, fetch: Fetch, progress: ProgressFile, several: bool) -> Staged:
    if file.url:
        path = staging.incoming_path(file.path, RECORDS)
        kept = model_fetch.kept(file, path)
        if kept:
            progress.learn(file.path, os.path.getsize(path), here=True)
            return Staged(path, kept, header.read(path))
        transfer = fetch(file, path)
        sha256 = transfer.sha256
    else:
        transfer = None
        progress.enter("copy", file.path)
        path, sha256 = staging.copy(str(file.src), file.path, RECORDS)
    try:
        if file.sha256 and sha256 != file.sha256:
            raise ModelError(
                f"{file.origin} has the sha256 {sha256}, and {file.sha256} is wanted. Nothing of it was kept; check "
                "both, the address and the digest."
            )
        # Told by its name at the source: the staged name means nothing to the operator.
        found = header.read(path)
        problems = header.check_length(found)
        if problems:
            raise header.GgufError(problems[0])
    except header.GgufError as error:
        _throw_away(path)
        raise ModelError(
            f"What came from {file.origin} is no whole GGUF file, and was not kept. "
            f"{str(error).replace(path, str(file.origin))}"
        ) from error
    except BaseException:
        _throw_away(path)
        raise
    os.chmod(path, 0o644)  # servers run as other users than the one that brought it
    file_record.settle(path)
    if several and file.url:
        # A later part may fail; the next run does not fetch this one again.
        file_record.record(path, RECORDS, sha256, _fetched_from(file, transfer))
    return Staged(path, sha256, found, transfer)


def _give_up(wanted: Wanted, staged: dict[int, Staged]) -> None:
    """Copies are thrown away, fetched parts are kept for the next run."""
    for index, one in staged.items():
        if not wanted.files[index].url:
            _throw_away(one.path)
    staging.tidy(os.path.dirname(staging.incoming_path(wanted.files[0].path, RECORDS)))


def _throw_away(path: str) -> None:
    with suppress(OSError):
        file_record.forget(path, RECORDS)
    staging.discard(path)


def _install(wanted: Wanted, observed: Observed, staged: dict[int, Staged]) -> tuple[SeenFile, ...]:
    """Put the new files in place. The first part comes last: while it is missing, the others are no model."""
    files = list(observed.files)
    for index in sorted(staged, reverse=True):
        one, path = staged[index], wanted.files[index].path
        staging.install(one.path, path)
        file_record.forget(one.path, RECORDS)
        files[index] = SeenFile(
            path, kind="file", size=one.gguf.size, gguf=replace(one.gguf, path=path), sha256=one.sha256
        )
    if staged:
        staging.tidy(os.path.dirname(staging.incoming_path(wanted.files[0].path, RECORDS)))
    return tuple(files)


def _record(
    wanted: Wanted, observed: Observed, steps: Plan, files: Sequence[SeenFile], staged: dict[int, Staged]
) -> Applied:
    """Record the new files, and those that were read again; a folder that takes no record costs only time."""
    now = list(files)
    warnings = []
    # The first part's record speaks for the whole model.
    for index in sorted({*steps.bring, *steps.record, *([0] if staged else [])}):
        seen = now[index]
        if seen.sha256 is None:
            continue
        details = {}
        if index == 0:
            parts = [one.gguf or header.read(one.path) for one in now]
            details = {"reader": READER, "summary": header.summary(parts)}
        since: int | None = time.time_ns()
        if index in staged:
            transfer = staged[index].transfer
            file = wanted.files[index]
            source = _fetched_from(file, transfer) if transfer else origin_of(file, observed.sources[index])
        else:
            source = _kept_source(wanted.files[index], observed, index)
            since = seen.read_since_ns or (seen.record.recorded_ns if seen.record else None)
        try:
            record = file_record.record(seen.path, RECORDS, seen.sha256, source, details, since)
        except OSError as error:
            warnings.append(
                f"{seen.path} could not be recorded as verified ({error.strerror}), so the next run reads it again. "
                f"The folder {os.path.dirname(seen.path)} has to be writable for the user {os.geteuid()}."
            )
            continue
        now[index] = replace(seen, record=record, trusted=True)
    transfers = tuple(one.transfer for one in staged.values() if one.transfer)
    return Applied(tuple(now), transfers, tuple(warnings))


def _fetched_from(file: WantedFile, transfer: Any) -> dict[str, Any]:
    """What a record says about a fetched file; the validator tells its version at the server, where no sha256 does."""
    return {**origin_of(file, None), "validator": transfer.validator}


def _kept_source(file: WantedFile, observed: Observed, index: int) -> dict[str, Any]:
    """Where a file that stays came from: what the last record says, if it was of this content; or what it equals."""
    seen, source = observed.files[index], observed.sources[index]
    if is_at_another_commit(file, seen) or (source is not None and source.sha256 == seen.sha256):
        return origin_of(file, source)
    return seen.record.source if seen.record and seen.record.sha256 == seen.sha256 else {}
