# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out the plan for an image: bring it, verify it, put it in place, ask it what it is, record that.

Private to gpufleet.llamacpp; may change at any time.

The file in place is not touched before the new one is complete, verified and synced. A server that has it open keeps
it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..._host.files import sync_folder
from ..._host.layout import IMAGE_RECORDS
from ..._result import OperatorError, Problem
from .. import file_record, staging
from ..seen_file import SeenFile, not_recorded
from ..staging import Staged
from . import inspect as image_inspect
from . import sif, signature
from .decide import ImageDecision
from .sources import apptainer
from .sources.source import ImageAccess, ImageFetch, ImageSource, PublishedImage

NOT_KEPT = "Nothing of it was kept."


@dataclass(frozen=True)
class AppliedImage:
    """The image now. ``source`` and ``facts`` as its record has them; ``staged`` if it was brought."""

    file: SeenFile
    source: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] | None = None
    staged: Staged | None = None
    warnings: tuple[str, ...] = ()


def apply(decision: ImageDecision, access: ImageAccess) -> AppliedImage:
    """Carry out the plan. Raises OperatorError; the file in place is the same then."""
    try:
        if decision.spec.state == "absent":
            return _remove(decision)
        if decision.plan.bring and decision.spec.source:
            return _replace(decision, decision.spec.source, access)
        return keep(decision, access, may_record=True)
    except OSError as error:
        raise staging.refused_by_host(error) from error


def keep(decision: ImageDecision, access: ImageAccess, may_record: bool) -> AppliedImage:
    """The image that stays, with the facts of its record, or its own; records what is new. Raises OSError."""
    seen, steps = decision.seen.file, decision.plan
    facts = image_inspect.learned(seen.details)
    warnings: list[str] = []
    is_new = facts is None
    if facts is None:
        facts, warnings = _learn(decision, access, seen.path, seen)
    whole = not warnings
    if may_record and (steps.record or (whole and is_new)):
        details = _details(decision, facts if whole else None, seen.details)
        seen, more = _record(seen, str(seen.sha256), steps.source, details, seen.known_since_ns)
        warnings += more
    return AppliedImage(seen, steps.source, facts, None, tuple(warnings))


def _remove(decision: ImageDecision) -> AppliedImage:
    seen = decision.seen
    if seen.file.exists:
        os.unlink(seen.file.path)
    for path in seen.leftovers:
        if os.path.isdir(path):
            apptainer.remove(path)
        with suppress(OSError):
            file_record.forget(path, IMAGE_RECORDS)
        staging.discard(path)
    file_record.forget(seen.file.path, IMAGE_RECORDS)
    if decision.plan.actions:
        sync_folder(seen.space.folder)
    return AppliedImage(SeenFile(seen.file.path))


def _replace(decision: ImageDecision, source: ImageSource, access: ImageAccess) -> AppliedImage:
    spec, seen = decision.spec, decision.seen
    place = staging.incoming_path(spec.path, IMAGE_RECORDS)
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    published = seen.published or PublishedImage()
    try:
        with source.fetch(ImageFetch(spec.path, place, spec.sha256, published, seen.program, access)) as staged:
            stamp = seen.source.stamp if seen.source else ()
            return _settle(decision, source.recorded(published, staged.validator, stamp), staged, access)
    finally:
        staging.tidy(os.path.dirname(place))


def _settle(decision: ImageDecision, source: Mapping[str, Any], staged: Staged, access: ImageAccess) -> AppliedImage:
    """Verify the staged file, ask it what it is, put it in place and record it."""
    spec, seen = decision.spec, decision.seen
    shown = spec.source.shown if spec.source else spec.path
    if spec.sha256 and staged.sha256 != spec.sha256:
        text = f"{shown} has the sha256 {staged.sha256}, and {spec.sha256} is expected"
        raise OperatorError(Problem(spec.names.sha256, text, f"Check both. {NOT_KEPT}"))
    problem = sif.problem(staged.path, shown)
    if problem:
        raise OperatorError(replace(spec.about_source(problem), remedy=f"{problem.remedy} {NOT_KEPT}"))
    os.chmod(staged.path, 0o644)  # servers run as other users than the one that brought it
    if spec.public_key and seen.program:
        wrong = signature.problem(access.run, seen.program, staged.path, spec.public_key, shown)
        if wrong:
            raise OperatorError(wrong)
    size = os.stat(staged.path).st_size
    file = SeenFile(spec.path, exists=True, is_file=True, size=size, sha256=staged.sha256)
    facts, warnings = _learn(decision, access, staged.path, file)
    details = _details(decision, None if warnings else facts, {})
    file_record.settle(staged.path)
    staging.install(staged.path, spec.path)
    file, more = _record(file, staged.sha256, source, details, None)
    return AppliedImage(file, source, facts, staged, (*warnings, *more))


def _learn(decision: ImageDecision, access: ImageAccess, path: str, seen: SeenFile) -> tuple[dict[str, Any], list[str]]:
    """Read the image ``seen``, which is at ``path`` now."""
    program = decision.seen.program
    if program is None:
        warning = f"This host has neither apptainer nor singularity, so what is in {seen.path} is not known."
        return dict.fromkeys(image_inspect.KEYS), [warning]
    facts, warnings, reading = image_inspect.learn(access.run, program, path, seen.path)
    if seen.sha256:
        access.remember(seen.sha256, reading)
    return facts, warnings


def _details(decision: ImageDecision, facts: Mapping[str, Any] | None, before: Mapping[str, Any]) -> dict[str, Any]:
    """The details of the record: the facts, if all are known, and the key that the signature was verified with."""
    details: dict[str, Any] = {"reader": image_inspect.READER, **facts} if facts else {}
    signed_by = decision.seen.key if decision.spec.public_key else before.get("signed_by")
    return {**details, **({"signed_by": signed_by} if signed_by else {})}


def _record(
    seen: SeenFile, sha256: str, source: Mapping[str, Any], details: Mapping[str, Any], since: int | None
) -> tuple[SeenFile, list[str]]:
    """Record the image; a folder that takes no record costs only time."""
    try:
        record = file_record.record(seen.path, IMAGE_RECORDS, sha256, source, details, since)
    except OSError as error:
        return seen, [not_recorded(seen.path, error)]
    return replace(seen, record=record, trusted=True), []
