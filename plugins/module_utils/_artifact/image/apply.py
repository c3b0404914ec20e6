# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out the plan for an image: bring it, prove it, put it in place, learn what it is, record that.

Private to gpufleet.llamacpp; may change at any time.

What is in place is not touched before the new file is whole, proven and synced; a server that has it open keeps it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from .. import file_record, staging
from . import build as image_build
from . import inspect as image_inspect
from . import sif, signature
from .fetch import Network, transfer_of
from .inspect import Remember
from .plan import ImageError, Observed, Plan, Remote, SeenImage, Wanted, file_source
from .sif import RECORDS
from .signature import Run


@dataclass(frozen=True)
class Applied:
    """The image as it is now. ``source`` and ``facts`` as its record has them; ``transfer`` where one was brought."""

    image: SeenImage
    source: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] | None = None
    transfer: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Staged:
    """The new file, whole and synced, before it is in its place; ``source`` is what its record will say."""

    path: str
    sha256: str
    source: Mapping[str, Any]
    transfer: Mapping[str, Any]


def apply(wanted: Wanted, observed: Observed, steps: Plan, run: Run, network: Network, remember: Remember) -> Applied:
    """Carry out the plan; the reading of a new image goes to ``remember``. Raises ImageError."""
    try:
        if wanted.state == "absent":
            return _remove(observed, steps)
        if steps.bring:
            return _replace(wanted, observed, run, network, remember)
        return keep(wanted, observed, steps, run, remember, may_record=True)
    except (staging.PlaceError, file_record.FileChanged) as error:
        raise ImageError(str(error)) from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ImageError(f"The host refused: {error.strerror or error}{where}. What was in place still is.") from error


def keep(wanted: Wanted, observed: Observed, steps: Plan, run: Run, remember: Remember, may_record: bool) -> Applied:
    """The image that stays, with what its record has or what it says itself; records what is news. Raises OSError."""
    seen = observed.image
    facts = image_inspect.learned(seen.details)
    warnings: list[str] = []
    whole = facts is not None
    if facts is None:
        facts, warnings = _learn(observed, run, seen.path, seen, remember)
        whole = not warnings
    if may_record and (steps.record or (whole and image_inspect.learned(seen.details) is None)):
        since = seen.read_since_ns or (seen.record.recorded_ns if seen.record else None)
        details = _details(wanted, observed, facts if whole else None, seen.details)
        seen, more = _record(seen, str(seen.sha256), steps.source, details, since)
        warnings += more
    return Applied(seen, steps.source, facts, {}, tuple(warnings))


def _remove(observed: Observed, steps: Plan) -> Applied:
    seen = observed.image
    if seen.kind != "absent":
        os.unlink(seen.path)
    for path in observed.leftovers:
        if os.path.isdir(path):
            image_build.remove(path)
        with suppress(OSError):
            file_record.forget(path, RECORDS)
        staging.discard(path)
    file_record.forget(seen.path, RECORDS)
    if steps.actions:
        staging.sync_folder(observed.room.folder)
    return Applied(SeenImage(seen.path))


def _replace(wanted: Wanted, observed: Observed, run: Run, network: Network, remember: Remember) -> Applied:
    incoming = staging.incoming_path(wanted.path, RECORDS)
    os.makedirs(os.path.dirname(incoming), mode=0o755, exist_ok=True)
    origin = wanted.origin.shown if wanted.origin else ""
    try:
        if wanted.by_runtime:
            with image_build.folder(incoming) as folder:
                staged = _build(wanted, observed, run, network, folder)
                return _settle(wanted, observed, run, staged, origin, remember)
        staged = _copy(wanted, observed) if _is_file(wanted) else _fetch(wanted, observed, network, incoming)
        try:
            return _settle(wanted, observed, run, staged, origin, remember)
        except BaseException:
            staging.discard(staged.path)
            raise
    finally:
        staging.tidy(os.path.dirname(incoming))


def _is_file(wanted: Wanted) -> bool:
    return wanted.origin is not None and wanted.origin.kind == "file"


def _copy(wanted: Wanted, observed: Observed) -> _Staged:
    if wanted.origin is None:
        raise ImageError(f"{wanted.path}: no src says where to get it from.")
    began = time.monotonic()
    path, sha256 = staging.copy(wanted.origin.address, wanted.path, RECORDS)
    spent = transfer_of(None, time.monotonic() - began)
    return _Staged(path, sha256, file_source(wanted.origin, observed.source), spent)


def _fetch(wanted: Wanted, observed: Observed, network: Network, incoming: str) -> _Staged:
    remote = observed.remote or Remote()
    got = network.bring(wanted, remote, incoming)
    source: dict[str, Any] = {"url": wanted.origin.shown if wanted.origin else None}
    source.update({"digest": remote.digest} if remote.digest else {"validator": got.validator})
    return _Staged(incoming, got.sha256, source, transfer_of(got, 0.0))


def _build(wanted: Wanted, observed: Observed, run: Run, network: Network, folder: str) -> _Staged:
    origin, program = wanted.origin, observed.runtime
    if origin is None or program is None:
        raise ImageError(f"{wanted.path}: there is nothing to pull it with.")
    began = time.monotonic()
    digest = observed.remote.digest if observed.remote else origin.pin
    address = origin.address
    if origin.reference is not None:
        # By digest, so that what comes is what was resolved, whatever becomes of the tag meanwhile.
        address = f"docker://{replace(origin.reference, digest=digest)}"
    path = image_build.build(run, program, address, folder, network.credentials, network.no_https)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    sha256 = file_record.hash_file(path)
    source = {"url": origin.shown, **({"digest": digest} if digest else {})}
    return _Staged(path, sha256, source, transfer_of(None, time.monotonic() - began))


def _settle(wanted: Wanted, observed: Observed, run: Run, staged: _Staged, origin: str, remember: Remember) -> Applied:
    """Prove the staged file, ask it what it is, put it in place and record it."""
    if wanted.sha256 and staged.sha256 != wanted.sha256:
        raise ImageError(
            f"{origin} has the sha256 {staged.sha256}, and {wanted.sha256} is wanted. Nothing of it was kept; check "
            "both, the address and the digest."
        )
    problems = sif.problems(staged.path)
    if problems:
        # Told by its name at the source: the staged name means nothing to the operator.
        words = problems[0].partition("image: ")[2].replace(staged.path, f"What came from {origin}")
        raise ImageError(f"{words} It was not kept.")
    os.chmod(staged.path, 0o644)  # servers run as other users than the one that brought it
    if wanted.public_key and observed.runtime:
        wrong = signature.problem(run, observed.runtime, staged.path, wanted.public_key, origin)
        if wrong:
            raise ImageError(wrong)
    size = os.stat(staged.path).st_size
    seen = SeenImage(wanted.path, kind="file", size=size, sha256=staged.sha256)
    facts, warnings = _learn(observed, run, staged.path, seen, remember)
    details = _details(wanted, observed, None if warnings else facts, {})
    file_record.settle(staged.path)
    staging.install(staged.path, wanted.path)
    seen, more = _record(seen, staged.sha256, staged.source, details, None)
    return Applied(seen, staged.source, facts, staged.transfer, (*warnings, *more))


def _learn(
    observed: Observed, run: Run, path: str, seen: SeenImage, remember: Remember
) -> tuple[dict[str, Any], list[str]]:
    """Read the image ``seen``, which is at ``path`` now."""
    if observed.runtime is None:
        words = f"This host has neither apptainer nor singularity, so what is in {seen.path} is not known."
        return dict.fromkeys(image_inspect.KEYS), [words]
    facts, warnings, reading = image_inspect.learn(run, observed.runtime, path, seen.path)
    if seen.sha256:
        remember(seen.sha256, reading)
    return facts, warnings


def _details(
    wanted: Wanted, observed: Observed, facts: Mapping[str, Any] | None, before: Mapping[str, Any]
) -> dict[str, Any]:
    """What the record keeps: what was learned, if all was, and the key that the signature was verified with."""
    details: dict[str, Any] = {"reader": image_inspect.READER, **facts} if facts else {}
    signed_by = observed.key if wanted.public_key else before.get("signed_by")
    return {**details, **({"signed_by": signed_by} if signed_by else {})}


def _record(
    seen: SeenImage, sha256: str, source: Mapping[str, Any], details: Mapping[str, Any], since: int | None
) -> tuple[SeenImage, list[str]]:
    """Record the image; a folder that takes no record costs only time."""
    try:
        record = file_record.record(seen.path, RECORDS, sha256, source, details, since)
    except OSError as error:
        return seen, [
            f"{seen.path} could not be recorded as verified ({error.strerror}), so the next run reads it again. "
            f"The folder {os.path.dirname(seen.path)} has to be writable for the user {os.geteuid()}."
        ]
    return replace(seen, record=record, trusted=True), []
