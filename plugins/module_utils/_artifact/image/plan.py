# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do so that an image is as specified: the pure part of sif_image.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._result import Action, Problem
from ..seen_file import SeenFile
from ..staging import lacks
from .observe import SeenImage, moved, unfit
from .sources.source import ImageSource, PublishedImage
from .spec import ImageSpec

NO_RUNTIME = "this host has neither apptainer nor singularity"
INSTALL = "Install Apptainer."


@dataclass(frozen=True)
class ImagePlan:
    """``record``: the image stays, and gets a new record, which is no action. ``source`` is for that record."""

    refusals: tuple[Problem, ...] = ()
    actions: tuple[Action, ...] = ()
    bring: bool = False
    record: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)


def plan(spec: ImageSpec, seen: SeenImage) -> ImagePlan:
    """The actions that make the image as specified, each with its reason, or every reason why not. Reads nothing."""
    file = seen.file
    wrong = [*spec.problems, *(map(spec.about_path, file.problems) if file.is_unusable else ())]
    if spec.state == "absent":
        return _plan_removal(spec, seen, wrong)
    reason = None if file.is_unusable else unfit(spec, file) or _news(spec, seen)
    if reason:
        wrong += _refusals(spec, seen, reason)
    elif seen.signature and file.is_file:
        wrong.append(seen.signature)
    if spec.public_key and seen.key is None:
        text = f"{spec.public_key} is not there on the host, or cannot be read"
        wrong.append(Problem("public_key", text, "Copy the key to the host."))
    if spec.public_key and seen.program is None:
        text = f"Apptainer verifies a signature, and {NO_RUNTIME}"
        wrong.append(Problem("verify_signature", text, INSTALL))
    if wrong:
        return ImagePlan(refusals=tuple(dict.fromkeys(wrong)))
    if reason is None or spec.source is None:
        source = _source_of_kept(spec, seen)
        return ImagePlan(record=_has_news(spec, seen, source), source=source)
    actions = []
    if not seen.space.exists:
        actions.append(Action(f"Create the folder {seen.space.folder}", f"{seen.space.folder} is not there"))
    actions.append(Action(f"{spec.source.verb} {spec.source.shown} to {spec.path}", reason))
    return ImagePlan(actions=tuple(actions), bring=True)


def _plan_removal(spec: ImageSpec, seen: SeenImage, wrong: list[Problem]) -> ImagePlan:
    paths = [seen.file.path] if seen.file.exists else []
    paths += seen.leftovers
    if paths and seen.space.problem:
        wrong = [*wrong, spec.about_path(seen.space.problem)]
    if wrong:
        return ImagePlan(refusals=tuple(wrong))
    return ImagePlan(actions=tuple(Action(f"Remove {path}", "the desired state is absent") for path in paths))


def _news(spec: ImageSpec, seen: SeenImage) -> str | None:
    """Why a sound file without an expected sha256 is brought again: it, or its source, changed."""
    source, file, published = spec.source, seen.file, seen.published
    if source is None or spec.sha256:
        return None
    if source.host_path:
        return _news_of_file(seen)
    if published and published.sha256:
        if published.sha256 == file.sha256:
            return None
        return (
            f"{source.shown} is {published.digest} now, with the sha256 {published.sha256}, and {file.path} has "
            f"{file.sha256}"
        )
    digest = source.pin or (published.digest if published else None)
    if digest:
        return _news_of_digest(source, file, digest)
    return moved(source, file) or _news_of_version(source, file, published)


def _news_of_file(seen: SeenImage) -> str | None:
    source, file = seen.source, seen.file
    if source is None or not source.is_file:
        return None
    if source.size != file.size:
        return f"{source.path} has {source.size} bytes, and {file.path} has {file.size}"
    if source.sha256 and file.sha256 and source.sha256 != file.sha256:
        return f"{source.path} has another content ({source.sha256}) than {file.path} ({file.sha256})"
    return None


def _news_of_digest(source: ImageSource, file: SeenFile, digest: str) -> str | None:
    known = source.known_digest(file)
    if digest == known:
        return None
    if known:
        return f"{source.shown} is {digest} now, and {file.path} is {known}"
    return f"{file.path} is not known to be {digest}, which is expected"


def _news_of_version(source: ImageSource, file: SeenFile, published: PublishedImage | None) -> str | None:
    now = published.validator if published else None
    was = file.source.get("validator", now)
    return f"{source.shown} has changed ({was} became {now})" if now and was != now else None


def _refusals(spec: ImageSpec, seen: SeenImage, reason: str) -> list[Problem]:
    """Every reason why an image that has to be brought cannot be."""
    names, source, published = spec.names, spec.source, seen.published
    refusals: list[Problem] = []

    def refuse(option: str, remedy: str) -> None:
        refusals.append(Problem(option, reason, remedy, spec.path))

    if source is None:
        refuse(names.path, f"No {names.src} says where to get it from. Give one.")
    elif spec.pull == "never":
        refuse(names.path, f"{names.pull} is never: bring it there, or let it be pulled.")
    size = (published.size or 0) if published else 0
    if source and source.needs_apptainer and seen.program is None:
        refuse(names.path, f"Only Apptainer can pull {source.shown}, and {NO_RUNTIME}. {INSTALL}")
    if source and source.host_path and seen.source is None:
        refuse(names.path, f"{names.src} is the same file, so it cannot be brought from there. Give another one.")
    elif source and seen.source:
        refusals += map(spec.about_source, _wrong_source(spec, seen.source))
        size = seen.source.size
    if source and published and published.sha256 and spec.sha256 and published.sha256 != spec.sha256:
        text = (
            f"{source.shown} is {published.digest} now, whose file has the sha256 {published.sha256}, and "
            f"{spec.sha256} is expected"
        )
        refusals.append(Problem(names.sha256, text, "Check both."))
    if seen.space.problem:
        refusals.append(spec.about_path(seen.space.problem))
    elif size:
        # The file and its record, and the two folders for staging.
        refusals += map(spec.about_path, lacks(seen.space, size * (source.copies if source else 1), 4))
    return refusals


def _wrong_source(spec: ImageSpec, source: SeenFile) -> tuple[Problem, ...]:
    if not source.exists:
        return (Problem("", f"{source.path} is not there", "Name a SIF file on the host.", source.path),)
    if source.problems:
        return source.problems
    if source.sha256 and spec.sha256 and source.sha256 != spec.sha256:
        text = f"{source.path} has the sha256 {source.sha256}, and {spec.sha256} is expected"
        return (Problem("", text, "Check both.", source.path),)
    return ()


def _source_of_kept(spec: ImageSpec, seen: SeenImage) -> dict[str, Any]:
    """The source of an image that stays, for its record."""
    source, file, published = spec.source, seen.file, seen.published
    if source is None or not file.sha256:
        return dict(file.source)
    if source.host_path:
        same = seen.source is not None and seen.source.sha256 == file.sha256
        stamp = seen.source.stamp if seen.source else ()
        return source.recorded(PublishedImage(), stamp=stamp) if same else dict(file.source)
    if published and published.sha256 == file.sha256:
        return source.recorded(published)
    digest = source.pin or (published.digest if published else None)
    if digest and digest == source.known_digest(file):
        return source.recorded(PublishedImage(digest))
    return dict(file.source)


def _has_news(spec: ImageSpec, seen: SeenImage, source: Mapping[str, Any]) -> bool:
    """Whether something was read or learned that the record lacks."""
    file = seen.file
    if not file.is_file or file.sha256 is None:
        return False
    verified = spec.public_key is not None and file.details.get("signed_by") != seen.key
    return not file.trusted or file.read_since_ns is not None or dict(file.source) != dict(source) or verified
