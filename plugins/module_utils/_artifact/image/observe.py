# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of an image on the host, and what its source has now where that matters. Changes nothing.

Private to gpufleet.llamacpp; may change at any time.

A file with a current record costs one stat and one small read. Without one it is read whole, as its sha256 matters.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..._host import runtime
from ..._host.layout import IMAGE_RECORDS
from ..._result import Problem
from ..seen_file import SeenFile, is_same, see, unreadable, with_sha256
from ..staging import FolderSpace, leftovers, space
from . import sif, signature
from .sources.source import ImageAccess, ImageSource, PublishedImage
from .spec import ImageSpec


@dataclass(frozen=True)
class SeenImage:
    """The image's file. ``source`` is the file on this host that it is a copy of, ``published`` what another source has
    now; None if that does not matter.
    """

    file: SeenFile
    space: FolderSpace
    source: SeenFile | None = None
    published: PublishedImage | None = None
    program: str | None = None  # the path of apptainer or singularity
    key: str | None = None  # the sha256 of the public key's file
    signature: Problem | None = None  # what is wrong with the image's signature
    unasked: bool = False  # the source could not be asked, as the library for the network is not there (check mode)
    leftovers: tuple[str, ...] = ()  # of interrupted runs; looked for where the image is to be removed


def observe(
    spec: ImageSpec, access: ImageAccess, published: PublishedImage | None = None, preview: bool = False
) -> SeenImage:
    """Look at the image and at its source. ``published`` is what the source has now, if it was asked before.

    ``preview``: also read what a change would read, so that check mode can return its outcome. Raises FileChanged if a
    file is written to meanwhile, and OperatorError where the source does not answer.
    """
    there = space(os.path.dirname(spec.path))
    program = runtime.find()
    if spec.state == "absent":
        left = tuple(leftovers(spec.path, IMAGE_RECORDS))
        return SeenImage(_glance(spec.path), there, program=program, leftovers=left)
    seen = look(spec.path, spec.verify)
    key = signature.key_digest(spec.public_key) if spec.public_key else None
    wrong = None
    sound = seen.is_file and not seen.problems
    if spec.public_key and key and program and sound and seen.details.get("signed_by") != key:
        wrong = signature.problem(access.run, program, spec.path, spec.public_key, spec.path)
    source, unasked = _look_at_source(spec, seen, preview), False
    if spec.source is None or not asks(spec, spec.source, seen):
        published = None
    elif published is None:
        unasked = not access.ready()
        published = PublishedImage() if unasked else spec.source.identify(seen, access)
    return SeenImage(seen, there, source, published, program, key, wrong, unasked=unasked)


def look(path: str, verify: str = "changed") -> SeenFile:
    """One file: its record if it is current; else its first bytes and its sha256. Raises FileChanged."""
    seen = _glance(path)
    if not seen.is_file or (seen.trusted and verify != "always"):
        return seen
    seen = _with_problem(seen)
    return seen if seen.problems else with_sha256(seen)


def _glance(path: str) -> SeenFile:
    """One file by its stat and its record alone."""
    seen = see(path, IMAGE_RECORDS, "a SIF file")
    if seen.is_file and not os.access(path, os.R_OK):
        return SeenFile(path, exists=True, problems=(unreadable(path, "Permission denied"),))
    return seen


def _with_problem(seen: SeenFile) -> SeenFile:
    problem = sif.problem(seen.path) if seen.is_file else None
    return replace(seen, problems=(problem,)) if problem else seen


def unfit(spec: ImageSpec, seen: SeenFile) -> str | None:
    """Why the file on the host is not as specified, whatever its source has."""
    if not seen.exists:
        return f"{seen.path} is not there"
    if seen.problems:
        return seen.problems[0].text
    if spec.sha256 and seen.sha256 and seen.sha256 != spec.sha256:
        return f"{seen.path} has the sha256 {seen.sha256}, and {spec.sha256} is expected"
    return None


def moved(source: ImageSource, seen: SeenFile) -> str | None:
    """Why a sound file is not of this source, by its record; None for a file of unknown origin."""
    if seen.record is None:
        return None
    came_from = seen.record.source.get("url") or seen.record.source.get("src")
    if came_from and came_from != source.shown:
        return f"{seen.path} came from {came_from}, and {source.shown} is expected"
    if came_from and seen.sha256 != seen.record.sha256:
        return f"{seen.path} is no longer what came from {came_from}: its sha256 was {seen.record.sha256}"
    return None


def asks(spec: ImageSpec, source: ImageSource, seen: SeenFile) -> bool:
    """Whether the plan depends on what the source has now; not where a digest or a record is enough."""
    if spec.state == "absent" or not source.can_be_asked or spec.pull == "never":
        return False
    if spec.problems or seen.is_unusable:
        return False
    if unfit(spec, seen):
        return True
    if spec.sha256:
        return False
    if source.pin:
        return source.known_digest(seen) != source.pin
    return spec.pull == "always" or moved(source, seen) is not None


def _look_at_source(spec: ImageSpec, seen: SeenFile, preview: bool) -> SeenFile | None:
    """The source on this host, as far as the plan needs it: often the given sha256 or the record is enough."""
    path = spec.source.host_path if spec.source else None
    if spec.source is None or path is None or (seen.exists and is_same(path, spec.path)):
        return None
    source = _glance(path)
    if unfit(spec, seen):
        return look(path) if preview else _with_problem(source)
    if spec.sha256:
        return None
    if seen.trusted and dict(seen.source) == spec.source.recorded(PublishedImage(), stamp=source.stamp):
        return None
    return look(path) if source.size == seen.size or preview else _with_problem(source)
