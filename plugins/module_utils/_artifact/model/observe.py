# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of a model on the host, and of its source if that is on the host too. Reads, and changes nothing.

Private to gpufleet.llamacpp; may change at any time.

A file with a current record costs one stat and one small read. Without one the header is read, and the content too
where its sha256 matters.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..._fetch.part_file import content_id
from ..._fetch.reserve import Need, remaining
from ..._host.layout import MODEL_RECORDS
from ..._result import Problem
from ..file_record import recorded
from ..seen_file import is_same
from ..staging import FolderSpace, incoming_path, leftovers, space
from .describe import summary_of
from .seen import SeenGguf, glance, look, set_problems
from .spec import FileSpec, ModelSpec


@dataclass(frozen=True)
class SeenModel:
    """The model's files. ``sources`` are those on this host, None where there is none or it does not matter."""

    files: tuple[SeenGguf, ...]
    sources: tuple[SeenGguf | None, ...]
    set_problems: tuple[Problem, ...]  # of files that are each sound and do not belong together
    space: FolderSpace
    leftovers: tuple[str, ...] = ()  # of interrupted runs; looked for where the model is to be removed
    needed: int = 0  # bytes of disk that fetching will still take, where the sizes are known before


def observe(spec: ModelSpec, preview: bool = False) -> SeenModel:
    """Look at the model's files and at their source on this host.

    ``preview``: also read what a change would read, so that check mode can return its outcome. Raises FileChanged if a
    file is written to meanwhile.
    """
    there = space(os.path.dirname(spec.files[0].path))
    if spec.state == "absent":
        files = tuple(glance(file.path) for file in spec.files)
        left = tuple(one for file in spec.files for one in leftovers(file.path, MODEL_RECORDS))
        return SeenModel(files, (None,) * len(files), (), there, left)
    files = tuple(look(file.path, spec.verify) for file in spec.files)
    wrong: tuple[Problem, ...] = ()
    if summary_of(files) is None and all(seen.is_file and not seen.problems for seen in files):
        files, wrong = set_problems(files)
    bad = [bool(wrong) or unfit(file, seen) is not None for file, seen in zip(spec.files, files)]
    sources = tuple(_look_at_source(spec, index, files[index], bad[index], preview) for index in range(len(files)))
    needed = sum(_needed(file) for file, is_bad in zip(spec.files, bad) if is_bad)
    return SeenModel(files, sources, wrong, there, needed=needed)


def unfit(file: FileSpec, seen: SeenGguf) -> str | None:
    """Why the file on the host is not as specified, whatever its source has."""
    if not seen.exists:
        return f"{seen.path} is not there"
    if seen.problems:
        return seen.problems[0].text
    proven = file.sha256 is not None and seen.sha256 == file.sha256
    if seen.holes and not proven:
        return seen.holes[0].text
    if file.sha256 and seen.sha256 and not proven:
        return f"{seen.path} has the sha256 {seen.sha256}, and {file.sha256} is expected"
    return None


def _look_at_source(spec: ModelSpec, index: int, seen: SeenGguf, is_bad: bool, preview: bool) -> SeenGguf | None:
    """The source on this host, as far as the plan needs it: often the given sha256 or the record is enough."""
    file = spec.files[index]
    path = spec.source.host_path(index) if spec.source else None
    if spec.source is None or path is None or (seen.exists and is_same(path, file.path)):
        return None
    if file.sha256:
        return look(path, "changed" if preview else "never") if is_bad else None
    source = glance(path)
    if not is_bad and seen.record and seen.record.source == spec.source.recorded(index, source.stamp):
        return None
    if is_bad or source.size != seen.size:
        return look(path, verify="never")
    return look(path)


def _needed(file: FileSpec) -> int:
    """The bytes of disk that fetching a file of known size will still take."""
    path = incoming_path(file.path, MODEL_RECORDS)
    if file.size is None or staged_sha256(file):
        return 0
    return remaining(Need(path, file.size, content_id(file.sha256, None) if file.sha256 else None))


def staged_sha256(file: FileSpec) -> str | None:
    """The sha256 of the file if an earlier run staged it completely, and it is the expected one."""
    found = recorded(incoming_path(file.path, MODEL_RECORDS), MODEL_RECORDS)
    return found.sha256 if found and found.sha256 == file.sha256 else None
