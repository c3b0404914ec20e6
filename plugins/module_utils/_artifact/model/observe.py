# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of a model on the host. Reads, and changes nothing.

Private to gpufleet.llamacpp; may change at any time.

A file with a current record costs one stat and one small read. Without one the header is read, and the content too
where its sha256 matters.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..._gguf import file as header
from ..file_record import hash_file, is_current, last_record
from ..staging import leftovers, room
from . import fetch as model_fetch
from .plan import RECORDS, Observed, Plan, SeenFile, is_at_another_commit, unfit
from .spec import Wanted, WantedFile

# Stands in a record beside the summary: one that another reader made is not used. Raise it when summary() changes.
READER = 1


def observe(wanted: Wanted, foresee: bool = False) -> Observed:
    """Look at the model's files and at where they would come from.

    ``foresee``: also read what a change would read anyway, so that its outcome can be told without it (check mode).
    Raises FileChanged if a file is written to meanwhile.
    """
    needed = 0
    if wanted.state == "absent":
        files = tuple(_stat(file.path) for file in wanted.files)
        sources: tuple[SeenFile | None, ...] = (None,) * len(files)
        set_problems: tuple[str, ...] = ()
        left = tuple(one for file in wanted.files for one in leftovers(file.path, RECORDS))
    else:
        left = ()
        files = tuple(look(file.path, wanted.verify) for file in wanted.files)
        files, set_problems = _together(files)
        sources = tuple(
            _look_at_source(file, seen, bool(unfit(file, seen) or set_problems), foresee)
            for file, seen in zip(wanted.files, files)
        )
        needed = sum(
            model_fetch.foreseen_need(file)
            for file, seen in zip(wanted.files, files)
            if unfit(file, seen) or set_problems
        )
    return Observed(files, sources, set_problems, room(os.path.dirname(wanted.files[0].path)), left, needed)


def look(path: str, verify: str = "changed") -> SeenFile:
    """One file: its record if it is current; else its header, and its sha256 unless ``verify`` is never.

    A file that is no whole GGUF is not hashed. Raises FileChanged if it is written to meanwhile.
    """
    seen = _stat(path)
    if seen.kind != "file" or (seen.trusted and verify != "always"):
        return seen
    seen = with_header(seen)
    if seen.problems or verify == "never":
        return seen
    since = time.time_ns()
    return replace(seen, sha256=hash_file(path), read_since_ns=since)


def look_quickly(path: str) -> SeenFile:
    """One file without reading its content: what the record and the header say."""
    return look(path, verify="never")


def _stat(path: str) -> SeenFile:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return SeenFile(path)
    except OSError as error:
        return SeenFile(path, kind="other", problems=(_unreadable(path, error),))
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        return SeenFile(path, kind="other", problems=(f"{path} is {what}; it must name a GGUF file.",))
    record = last_record(path, RECORDS)
    trusted = record is not None and is_current(path, record)
    return SeenFile(
        path,
        kind="file",
        size=status.st_size,
        stamp=(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino),
        record=record,
        trusted=trusted,
        sha256=record.sha256 if record and trusted else None,
    )


def with_header(seen: SeenFile) -> SeenFile:
    """The same file with its header, and with what is wrong with it as a GGUF file."""
    try:
        found = header.read(seen.path)
        return replace(
            seen,
            gguf=found,
            problems=tuple(header.check_length(found)),
            holes=tuple(header.check_holes(seen.path, found)),
        )
    except header.GgufError as error:
        return replace(seen, problems=(str(error),))
    except OSError as error:
        return replace(seen, kind="other", problems=(_unreadable(seen.path, error),))


def _unreadable(path: str, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}). Let the user {os.geteuid()}, which runs this task, read it."


def _together(files: tuple[SeenFile, ...]) -> tuple[tuple[SeenFile, ...], tuple[str, ...]]:
    """Whether sound files are one model. The first file's record says so if all records are current."""
    if any(seen.kind != "file" or seen.problems for seen in files):
        return files, ()
    if details(files) is not None:
        return files, ()
    files = tuple(seen if seen.gguf else with_header(seen) for seen in files)
    parts = [seen.gguf for seen in files if seen.gguf]
    return files, tuple(header.check_set(parts)) if len(parts) == len(files) else ()


def _look_at_source(file: WantedFile, seen: SeenFile, needed: bool, foresee: bool) -> SeenFile | None:
    """The source on this host, as far as the decision needs it: often the wanted sha256 or the record decides."""
    if file.src is None or (seen.kind != "absent" and _is_same(file.src, file.path)):
        return None
    if file.sha256:
        return look(file.src, "changed" if foresee else "never") if needed else None
    source = _stat(file.src)
    if not needed and seen.record and seen.record.source == origin_of(file, source):
        return None
    if needed or source.size != seen.size:
        return look_quickly(file.src)
    return look(file.src)


def origin_of(file: WantedFile, source: SeenFile | None) -> dict[str, Any]:
    """What a record says about where the file came from."""
    if file.url:
        return {"url": file.origin, **(vars(file.hub) if file.hub and file.commit else {})}
    return {"src": file.src, "stamp": list(source.stamp)} if file.src and source else {}


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def details(files: Sequence[SeenFile]) -> dict[str, Any] | None:
    """The model's summary out of its records; None where a record is not current or from another reader."""
    first = files[0].record
    if first is None or not all(seen.trusted for seen in files) or first.details.get("reader") != READER:
        return None
    return dict(first.details.get("summary") or {}) or None


def describe(path: str, files: Sequence[SeenFile]) -> dict[str, Any]:
    """The model as a module returns it. ``files`` is all of it, in order; sizes in bytes."""
    there = [seen for seen in files if seen.kind != "absent"]
    facts = details(files)
    if facts is None:
        parts = [seen.gguf or (with_header(seen).gguf if seen.size else None) for seen in there]
        found = [part for part in parts if part]
        facts = header.summary(found) if found and len(found) == len(files) else dict.fromkeys(header.SUMMARY_KEYS)
    digests = [seen.sha256 for seen in files]
    source = next(filter(None, map(_source_of, files)), {})
    return {
        "path": path,
        "state": "present" if there else "absent",
        "files": [{"path": seen.path, "size": seen.size or None, "sha256": seen.sha256} for seen in there],
        "size": sum(seen.size for seen in there) or None,
        "sha256": digests[0] if len(digests) == 1 else None,
        "source": source.get("url") or source.get("src"),
        "revision": source.get("revision"),
        **facts,
    }


def _source_of(seen: SeenFile) -> dict[str, Any]:
    """Where the content came from; empty where that is not known."""
    recorded = seen.record.source if seen.record and seen.sha256 == seen.record.sha256 else {}
    return seen.source or recorded


def foreseen(wanted: Wanted, observed: Observed, steps: Plan) -> tuple[SeenFile, ...]:
    """The model's files as the plan will leave them, as far as that can be told without doing it."""
    files = [SeenFile(seen.path) if index in steps.remove else seen for index, seen in enumerate(observed.files)]
    for index in steps.bring:
        file, source = wanted.files[index], observed.sources[index]
        new = SeenFile(file.path, kind="file", size=file.size or 0, sha256=file.sha256, source=origin_of(file, source))
        if source is not None:
            source = source if source.gguf else with_header(source)
            new = replace(new, size=source.size, gguf=source.gguf, sha256=file.sha256 or source.sha256)
        files[index] = new
    for index in steps.record:
        file = wanted.files[index]
        if is_at_another_commit(file, files[index]):
            files[index] = replace(files[index], source=origin_of(file, None))
    return tuple(files)


def inventory(path: str) -> list[dict[str, Any]]:
    """Every model that ``path`` names, or that lies in the folder ``path``, each with what is wrong with it.

    Reads headers and records only, so it takes the same time for every size. Raises OSError if a folder is unreadable.
    """
    paths = [path]
    if os.path.isdir(path):
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".gguf")]
    models: dict[str, dict[str, Any]] = {}
    for one in paths:
        try:
            parts = header.split_paths(one)
        except header.GgufError:
            parts = [one]
        if parts[0] not in models:
            models[parts[0]] = _entry(parts)
    return list(models.values())


def _entry(parts: Sequence[str]) -> dict[str, Any]:
    files, set_problems = _together(tuple(look_quickly(part) for part in parts))
    problems = [problem for seen in files for problem in (*seen.problems, *seen.holes)]
    there = [seen for seen in files if seen.kind != "absent"]
    if there:
        problems += [f"{seen.path} is not there, and belongs to this model." for seen in files if seen not in there]
    return {**describe(parts[0], files), "problems": [*problems, *set_problems]}
