# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to do about all declared instances of a host and their models, looked at in one go.

Private to gpufleet.llamacpp; may change at any time.

Each instance and each model is looked at by the code of the module that would bring it to its state. So a host with
nothing to do is asked once, however many instances it has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .._artifact.file_record import FileChanged
from .._artifact.image.resolve import Image
from .._artifact.image.signature import Run
from .._artifact.model.decide import decide
from .._artifact.model.options import EXCLUSIVE, MODEL, TOGETHER
from .._artifact.model.plan import ModelError
from .._fetch.source import FetchError
from .._host.manager import ManagerError
from .._preflight.gpus import Neighbour
from .._result import Problem, Refusal
from .._spec import record
from .._spec.options import INSTANCE
from .reconcile import Answer, Request, ensure

# States in which a server needs no model.
AT_REST = ("stopped", "absent")


@dataclass(frozen=True)
class Ways:
    """The ways to the host, as in ensure.Request."""

    home: str
    run: Run
    library: Callable[[str], bool]
    hide: Callable[[str], object]


@dataclass
class Outlook:
    """What there is to do (what llamacpp_plan returns), and every problem that stands in the way of any of it.

    ``takes``: what those that are to do will have of the GPUs; ``sure``: that is known of all of them.
    """

    plan: dict[str, list[Any]]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    takes: list[Neighbour] = field(default_factory=list)
    sure: bool = True


def look(declared: Sequence[Mapping[str, Any]], ways: Ways, environ: Mapping[str, str], strict: bool) -> Outlook:
    """Look at all of them; changes nothing, raises nothing.

    ``declared`` is what the filter of that name, or as_recorded, returns. ``strict``: what nobody is going to bring is
    a problem; in check mode an earlier task might have brought it.
    """
    found = Outlook({"models": [], "images": [], "instances": [], "undeclared": [], "memory": []})
    served = [entry for entry in declared if entry.get("state") not in AT_REST]
    for model in unique([entry["model"] for entry in served if "model" in entry]):
        _look_at_model(model, ways, environ, found)
    there = {model["path"] for model in found.plan["models"] if os.path.exists(os.path.expanduser(model["path"]))}
    for entry in declared:
        if entry in served and _path(entry) in there:
            # What it will be is known when the model has been looked at whole, which is the next task's work.
            found.plan["instances"].append(entry)
            found.sure = False
        else:
            _look_at_instance(entry, ways, strict, found)
    names = [entry["name"] for entry in declared]
    found.plan["undeclared"] = [name for name in record.names(ways.home) if name not in names]
    found.plan["images"] = unique(found.plan["images"])
    found.problems[:] = unique(found.problems)
    found.warnings[:] = unique(found.warnings)
    return found


def unique(values: Sequence[Any]) -> list[Any]:
    """The values, each once, in their order."""
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _look_at_model(model: Mapping[str, Any], ways: Ways, environ: Mapping[str, str], found: Outlook) -> None:
    """Add whether there is something to do about a model. Reads nothing of it: what is not on record is to be read."""
    valid = ArgumentSpecValidator(MODEL, mutually_exclusive=EXCLUSIVE, required_together=TOGETHER).validate(
        {**model, "home": ways.home}
    )
    params, problems = valid.validated_parameters, list(valid.error_messages)
    if not problems:
        quick = {**params, "verify": "never"}
        try:
            decision = decide(quick, environ, lambda: ways.library("requests"), ways.hide, foresee=False)
        except (ModelError, FileChanged, FetchError, OSError) as error:
            problems.append(str(error))
        else:
            problems += decision.plan.refusals
            found.warnings += decision.wanted.warnings
    if problems:
        found.problems += [f"{model['path']}: {problem}" for problem in problems]
        return
    known = params["verify"] != "always" and all(file.trusted for file in decision.observed.files)
    if decision.plan.actions or decision.plan.record or not known:
        found.plan["models"].append(model)


def _look_at_instance(entry: Mapping[str, Any], ways: Ways, strict: bool, found: Outlook) -> None:
    """Add whether there is something to do about an instance, or what stands in the way."""
    problems: Sequence[str]
    try:
        answer = _foretell(entry, ways, tuple(found.takes))
    except Refusal as refusal:
        problems = [str(problem) for problem in refusal.problems]
        if found.plan["instances"] and all(_may_pass(problem, found.sure) for problem in refusal.problems):
            found.plan["instances"].append(entry)
            found.warnings += [f"{entry['name']}: {problem}" for problem in problems]
            problems, found.sure = [], False
    except (ManagerError, FetchError, FileChanged, OSError) as error:
        problems = [str(error)]
    else:
        coming = [os.path.expanduser(model["path"]) for model in found.plan["models"]]
        problems = [str(missing) for missing in answer.missing if strict and not _comes(missing, coming)]
        absent = [str(missing) for missing in answer.missing]
        found.warnings += [f"{entry['name']}: {warning}" for warning in answer.warnings if warning not in absent]
        if answer.result["changed"] or answer.touched or answer.missing:
            found.plan["instances"].append(entry)
        found.sure = found.sure and not answer.missing and not answer.image
        if answer.takes:
            found.takes.append(answer.takes)
            rows = answer.result.get("memory") or []
            found.plan["memory"] += [{"instance": entry["name"], **row} for row in rows]
        if answer.image:
            found.plan["images"].append(_as_options(entry, answer.image))
    found.problems += [f"{entry['name']}: {problem}" for problem in problems]


def _as_options(entry: Mapping[str, Any], image: Image) -> dict[str, Any]:
    """The options of sif_image that bring the image to where the instance expects it."""
    given = {key: entry.get(f"image_{key}") for key in ("auth_file", "no_https", "ca_path")}
    options = {"path": image.path, "src": entry["image"], "sha256": image.sha256, "pull": entry.get("pull"), **given}
    return {key: value for key, value in options.items() if value is not None}


def _may_pass(problem: Problem | str, sure: bool) -> bool:
    """Whether the change of an earlier instance can end the problem.

    ``sure``: what the earlier ones take of the GPUs after their change is known, and so is counted already.
    """
    return isinstance(problem, Problem) and problem.may_pass and (problem.option == "port" or not sure)


def _comes(missing: Problem, coming: Sequence[str]) -> bool:
    """Whether the missing path is one of the models that come, or a folder that they create."""
    path = missing.path or ""
    if missing.option == "model":
        return os.path.dirname(path) in [os.path.dirname(model) for model in coming]
    return missing.option == "binds" and any(model.startswith(f"{path.rstrip('/')}/") for model in coming)


def _path(entry: Mapping[str, Any]) -> Any:
    """The model's path; None for an instance that stays as it is recorded."""
    return (entry.get("model") or {}).get("path")


def _foretell(entry: Mapping[str, Any], ways: Ways, before: tuple[Neighbour, ...]) -> Answer:
    """What llamacpp_instance would answer in check mode."""
    valid = ArgumentSpecValidator(INSTANCE).validate({**entry, "model": _path(entry), "home": ways.home})
    if valid.error_messages:
        raise Refusal(valid.error_messages)
    return ensure(Request(valid.validated_parameters, ways.home, True, ways.run, ways.library, ways.hide, before))
