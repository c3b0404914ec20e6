# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do so that a model is as specified: the pure part of gguf_model.

Private to gpufleet.llamacpp; may change at any time.

A model is one GGUF file or all the parts of one split GGUF.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..._result import Action, Problem
from ..staging import lacks
from .observe import SeenModel, unfit
from .seen import SeenGguf
from .spec import FileSpec, ModelSource, ModelSpec


@dataclass(frozen=True)
class ModelPlan:
    """``bring``, ``record`` and ``remove`` are indexes of the model's files. Making a record is no action."""

    refusals: tuple[Problem, ...] = ()
    actions: tuple[Action, ...] = ()
    bring: tuple[int, ...] = ()
    record: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()


def plan(spec: ModelSpec, seen: SeenModel) -> ModelPlan:
    """The actions that make the model as specified, each with its reason, or every reason why not. Reads nothing."""
    wrong = [*spec.problems, *(_about_path(one.problems[0]) for one in seen.files if one.is_unusable)]
    if spec.state == "absent":
        return _plan_removal(seen, wrong)
    indexes = range(len(spec.files))
    reasons = [unfit(spec.files[index], seen.files[index]) or _news(spec, seen, index) for index in indexes]
    # Of parts that are each sound and do not belong together, nothing shows which one is wrong.
    if seen.set_problems and not any(reasons):
        reasons = [seen.set_problems[0].text] * len(reasons)
    bring = {index: reason for index, reason in enumerate(reasons) if reason}
    refusals = dict.fromkeys([*wrong, *_refusals(spec, seen, bring)])
    if refusals:
        return ModelPlan(refusals=tuple(refusals))
    actions = _actions(spec, spec.source, seen, bring) if spec.source else []
    return ModelPlan(actions=tuple(actions), bring=tuple(bring), record=_to_record(spec, seen, bring))


def _actions(spec: ModelSpec, source: ModelSource, seen: SeenModel, bring: dict[int, str]) -> list[Action]:
    actions = []
    if bring and not seen.space.exists:
        actions.append(Action(f"Create the folder {seen.space.folder}", f"{seen.space.folder} is not there"))
    for index, reason in bring.items():
        actions.append(Action(f"{source.verb} {source.shown(index)} to {spec.files[index].path}", reason))
    return actions


def _plan_removal(seen: SeenModel, wrong: list[Problem]) -> ModelPlan:
    remove = tuple(index for index, one in enumerate(seen.files) if one.exists)
    if (remove or seen.leftovers) and seen.space.problem:
        wrong = [*wrong, _about_path(seen.space.problem)]
    if wrong:
        return ModelPlan(refusals=tuple(wrong))
    paths = [seen.files[index].path for index in remove] + list(seen.leftovers)
    return ModelPlan(
        actions=tuple(Action(f"Remove {path}", "the desired state is absent") for path in paths), remove=remove
    )


def _to_record(spec: ModelSpec, seen: SeenModel, bring: dict[int, str]) -> tuple[int, ...]:
    """The files that stay, and of which something was read, or is named otherwise now, that the record lacks."""
    return tuple(
        index
        for index, (one, source) in enumerate(zip(seen.files, seen.sources))
        if index not in bring and (_was_read(one, source) or is_renamed(spec.source, index, spec.files[index], one))
    )


def _was_read(seen: SeenGguf, source: SeenGguf | None) -> bool:
    """Whether something was read that the next run need not read again."""
    read = seen.read_since_ns is not None or seen.gguf is not None or (source is not None and source.sha256 is not None)
    return seen.sha256 is not None and (read or not seen.trusted)


def is_renamed(source: ModelSource | None, index: int, file: FileSpec, seen: SeenGguf) -> bool:
    """Whether the file stays, and its source has another name for it than the record: the hub another commit."""
    if source is None or seen.sha256 is None or seen.sha256 != file.sha256:
        return False
    return source.renames(index, seen.record.source if seen.record else {})


def _news(spec: ModelSpec, seen: SeenModel, index: int) -> str | None:
    """Why a sound file without an expected sha256 is brought again: it, or its source, changed."""
    file, one, source = spec.files[index], seen.files[index], seen.sources[index]
    if file.sha256 or spec.source is None:
        return None
    if source is not None and source.is_file and source.size != one.size:
        return f"{source.path} has {source.size} bytes, and {one.path} has {one.size}"
    if source is not None and source.sha256 and one.sha256 and source.sha256 != one.sha256:
        return f"{source.path} has another content ({source.sha256}) than {one.path} ({one.sha256})"
    if one.record is None or not spec.source.compares_addresses():
        return None
    came_from, shown = one.record.source.get("url") or one.record.source.get("src"), spec.source.shown(index)
    if came_from and came_from != shown:
        return f"{one.path} came from {came_from}, and {shown} is expected"
    if came_from and one.sha256 and one.sha256 != one.record.sha256:
        return f"{one.path} is no longer what came from {came_from}: its sha256 was {one.record.sha256}"
    return None


def _refusals(spec: ModelSpec, seen: SeenModel, bring: dict[int, str]) -> list[Problem]:
    """Every reason why the files that have to be brought cannot be."""
    refusals: list[Problem] = []
    size = 0
    for index, reason in bring.items():
        file, source = spec.files[index], seen.sources[index]
        if seen.files[index].is_unusable:
            continue  # nothing can be brought to its place, whatever the source is
        if spec.source is None or (source is None and not spec.source.is_remote):
            remedy = "No repo, url or src says where to get it from. Give one of them."
            refusals.append(Problem("path", reason, remedy, file.path))
        elif spec.source.is_remote and spec.offline:
            remedy = "It is not fetched, as offline is set. Fetch it once without offline."
            refusals.append(Problem("offline", reason, remedy, file.path))
        elif source is not None:
            refusals += [replace(problem, option=spec.source.option) for problem in _wrong_source(file, source)]
            size += source.size
    if bring and seen.space.problem:
        refusals.append(_about_path(seen.space.problem))
    elif bring:
        # Of each file: itself and its record; and the two folders for staging.
        refusals += map(_about_path, lacks(seen.space, size + seen.needed, 2 * len(bring) + 2))
    return refusals


def _wrong_source(file: FileSpec, source: SeenGguf) -> tuple[Problem, ...]:
    if not source.exists:
        return (Problem("", f"{source.path} is not there", "Name a GGUF file on the host.", source.path),)
    if source.problems:
        return source.problems
    if source.sha256 and file.sha256 and source.sha256 != file.sha256:
        text = f"{source.path} has the sha256 {source.sha256}, and {file.sha256} is expected"
        return (Problem("", text, "Check both.", source.path),)
    return () if file.sha256 else source.holes


def _about_path(problem: Problem) -> Problem:
    return replace(problem, option="path")
