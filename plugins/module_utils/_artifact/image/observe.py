# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of an image: on the host, and where needed at its source. Changes nothing.

Private to gpufleet.llamacpp; may change at any time.

A file with a current record costs one stat and one small read. Without one it is read whole, as its sha256 matters.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..._host import runtime
from ..file_record import hash_file, is_current, last_record
from ..staging import leftovers, room
from . import inspect as image_inspect
from . import sif
from . import signature as image_sign
from .plan import Observed, Plan, Remote, SeenImage, Wanted, asks, file_source, unfit
from .sif import RECORDS
from .signature import Run

# Asks the source of the image over the network; raises FetchError.
Resolve = Callable[[Wanted, SeenImage], Remote]


def observe(wanted: Wanted, run: Run, resolve: Resolve, foresee: bool = False) -> Observed:
    """Look at the image and at where it would come from.

    ``foresee``: also read what a change would read anyway, so that its outcome can be told without it (check mode).
    Raises FileChanged if a file is written to meanwhile, and FetchError where the source does not answer.
    """
    there = room(os.path.dirname(wanted.path))
    program = runtime.find()
    if wanted.state == "absent":
        return Observed(_stat(wanted.path), there, runtime=program, leftovers=tuple(leftovers(wanted.path, RECORDS)))
    seen = look(wanted.path, wanted.verify)
    key = image_sign.key_digest(wanted.public_key) if wanted.public_key else None
    signature = None
    sound = seen.kind == "file" and not seen.problem
    if wanted.public_key and key and program and sound and seen.details.get("signed_by") != key:
        signature = image_sign.problem(run, program, wanted.path, wanted.public_key, wanted.path)
    return Observed(
        seen,
        there,
        source=_look_at_source(wanted, seen, foresee),
        remote=resolve(wanted, seen) if asks(wanted, seen) else None,
        runtime=program,
        key=key,
        signature=signature,
    )


def look(path: str, verify: str = "changed") -> SeenImage:
    """One file: its record if it is current; else its first bytes and its sha256. Raises FileChanged."""
    seen = _stat(path)
    if seen.kind != "file" or (seen.trusted and verify != "always"):
        return seen
    seen = _with_problem(seen)
    if seen.problem:
        return seen
    since = time.time_ns()
    return replace(seen, sha256=hash_file(path), read_since_ns=since)


def _with_problem(seen: SeenImage) -> SeenImage:
    problems = sif.problems(seen.path) if seen.kind == "file" else []
    return replace(seen, problem=problems[0].partition("image: ")[2]) if problems else seen


def _stat(path: str) -> SeenImage:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return SeenImage(path)
    except OSError as error:
        return SeenImage(path, kind="other", problem=f"{path} cannot be looked at ({error.strerror}).")
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        return SeenImage(path, kind="other", problem=f"{path} is {what}; it must name a SIF file.")
    if not os.access(path, os.R_OK):
        words = f"{path} cannot be read. Let the user {os.geteuid()}, which runs this task, read it."
        return SeenImage(path, kind="other", problem=words)
    record = last_record(path, RECORDS)
    trusted = record is not None and is_current(path, record)
    return SeenImage(
        path,
        kind="file",
        size=status.st_size,
        stamp=(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino),
        record=record,
        trusted=trusted,
        sha256=record.sha256 if record and trusted else None,
    )


def _look_at_source(wanted: Wanted, seen: SeenImage, foresee: bool) -> SeenImage | None:
    """The source on this host, as far as the decision needs it: often the wanted sha256 or the record decides."""
    if wanted.origin is None or wanted.origin.kind != "file":
        return None
    path = wanted.origin.address
    if seen.kind != "absent" and _is_same(path, wanted.path):
        return None
    source = _stat(path)
    if unfit(wanted, seen):
        return look(path) if foresee else _with_problem(source)
    if wanted.sha256 or (seen.trusted and dict(seen.source) == file_source(wanted.origin, source)):
        return None
    return look(path) if source.size == seen.size or foresee else _with_problem(source)


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def foreseen(wanted: Wanted, observed: Observed, steps: Plan) -> tuple[SeenImage, dict[str, Any]]:
    """The image as the plan will leave it, and where it will be from, as far as that can be told without doing it."""
    origin = wanted.origin
    if not steps.bring or origin is None:
        return SeenImage(wanted.path), {}
    source, remote = observed.source, observed.remote or Remote()
    size = source.size if source else 0 if wanted.by_runtime else remote.size or 0
    sha256 = wanted.sha256 or (source.sha256 if source else remote.sha256)
    came_from = {"src" if origin.kind == "file" else "url": origin.shown, "digest": remote.digest or origin.pin}
    return SeenImage(wanted.path, kind="file", size=size, sha256=sha256), came_from


def describe(seen: SeenImage, source: Mapping[str, Any], facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The image as a module returns it; ``source`` as its record has it, sizes in bytes."""
    facts = facts or dict.fromkeys(image_inspect.KEYS)
    return {
        "path": seen.path,
        "state": "absent" if seen.kind == "absent" else "present",
        "size": seen.size or None,
        "sha256": seen.sha256,
        "source": source.get("url") or source.get("src"),
        "digest": source.get("digest"),
        **facts,
    }


def shown(seen: SeenImage, source: Mapping[str, Any]) -> dict[str, Any]:
    """The image for one side of ``--diff``; None is what cannot be known yet."""
    if seen.kind != "file":
        return {}
    values = {"size": seen.size or None, "sha256": seen.sha256, "source": source.get("url") or source.get("src")}
    return {seen.path: {**values, "digest": source.get("digest")}}
