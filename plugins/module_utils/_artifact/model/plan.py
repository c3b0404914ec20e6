# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen of a model, and what to do so that it is as wanted: the pure part of gguf_model.

Private to gpufleet.llamacpp; may change at any time.

A model is one GGUF file or all the parts of one split GGUF. model_wish.py says what is wanted,
model_hub.py what a hub has of it; model_observe.py looks, ``plan`` decides, model_apply.py does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._gguf.file import Gguf
from ..._host import layout
from ..._result import Action
from ..file_record import Identity
from ..staging import Room, lacks
from .spec import Wanted, WantedFile

# The record folder, beside the model's files.
RECORDS = layout.MODEL_RECORDS


class ModelError(Exception):
    """A plan could not be carried out; what was in place still is. The message is a sentence for the operator."""


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
    source: dict[str, Any] = field(default_factory=dict)  # what its record will say, where that is foreseen


@dataclass(frozen=True)
class Observed:
    files: tuple[SeenFile, ...]
    sources: tuple[SeenFile | None, ...]  # on this host; None where there is none, or nothing was asked of it
    set_problems: tuple[str, ...]
    room: Room
    leftovers: tuple[str, ...] = ()  # of interrupted runs; looked for where the model is to be removed
    needed: int = 0  # bytes of disk that fetching will still take, where the sizes are known beforehand


@dataclass(frozen=True)
class Plan:
    """``bring`` and ``record`` are indexes of the model's files; ``remove`` are those of files to remove."""

    refusals: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    bring: tuple[int, ...] = ()
    record: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()


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
        if index not in bring and (_is_news_to_record(seen, source) or is_at_another_commit(wanted.files[index], seen))
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


def is_at_another_commit(file: WantedFile, seen: SeenFile) -> bool:
    """Whether the file stays as it is, and the hub has it under another commit, or name, than the record says."""
    if file.hub is None or file.commit is None or seen.sha256 is None or seen.sha256 != file.sha256:
        return False
    said = seen.record.source if seen.record else {}
    return any(said.get(key) != value for key, value in vars(file.hub).items())


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
    if not file.url or seen.record is None or (file.hub and not file.commit):
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
            refusals.append(f"{reason}. No repo, url or src says where to get it from.")
        elif file.url and wanted.offline:
            refusals.append(f"{str(reasons[index]).rstrip('.')}. It is not fetched, as offline is set.")
        elif source is not None:
            refusals += _wrong_source(file, source)
            size += source.size
    if bring and observed.room.problem:
        refusals.append(observed.room.problem)
    elif bring:
        # Of each file: itself, its record, and what it lies in until it is whole.
        refusals += lacks(observed.room, size + observed.needed, 2 * len(bring) + 2)
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
