# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A preview of all declared instances of a host and their models, in one go.

Private to gpufleet.llamacpp; may change at any time.

Each instance and each model is looked at by the code of the module that would change it. So a host with nothing to do
is asked once, however many instances it has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .._artifact.image.resolve import Image
from .._artifact.image.sources.source import RunCommand
from .._artifact.model.decide import decide
from .._artifact.model.options import EXCLUSIVE, MODEL, TOGETHER
from .._artifact.model.spec import ModelAccess
from .._preflight.gpus import Neighbour
from .._result import OperatorError, Problem, Refusal
from .._spec import store
from .._spec.options import INSTANCE
from .reconcile import reconcile
from .request import Answer, Request

# States in which a server needs no model.
AT_REST = ("stopped", "absent")


@dataclass(frozen=True)
class HostTools:
    """The ways to the host, as in Request."""

    home: str
    run: RunCommand
    library: Callable[[str], bool]
    hide: Callable[[str], object]


@dataclass
class HostPlan:
    """What there is to do (what llamacpp_plan returns), and every problem that stands in the way of any of it.

    ``takes``: what the instances that change will have of the GPUs; ``sure``: that is known of all of them.
    """

    plan: dict[str, list[Any]]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    takes: list[Neighbour] = field(default_factory=list)
    sure: bool = True


def look(declared: Sequence[Mapping[str, Any]], host: HostTools, environ: Mapping[str, str], strict: bool) -> HostPlan:
    """Look at all of them; changes nothing, raises nothing.

    ``declared`` is what the filter of that name, or as_recorded, returns. ``strict``: what no task of the run brings is
    a problem; in check mode an earlier task may have brought it.
    """
    found = HostPlan({"models": [], "images": [], "instances": [], "undeclared": [], "memory": []})
    served = [entry for entry in declared if entry.get("state") not in AT_REST]
    for model in unique([entry["model"] for entry in served if "model" in entry]):
        _look_at_model(model, host, environ, found)
    there = {model["path"] for model in found.plan["models"] if os.path.exists(os.path.expanduser(model["path"]))}
    for entry in declared:
        if entry in served and _path(entry) in there:
            # What it will be is known when the whole model has been read, by the next task.
            found.plan["instances"].append(entry)
            found.sure = False
        else:
            _look_at_instance(entry, host, strict, found)
    names = [entry["name"] for entry in declared]
    found.plan["undeclared"] = [name for name in store.names(host.home) if name not in names]
    found.plan["images"] = unique(found.plan["images"])
    found.problems[:] = unique(found.problems)
    found.warnings[:] = unique(found.warnings)
    return found


def unique(values: Sequence[Any]) -> list[Any]:
    """The values, each once, in their order."""
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _look_at_model(model: Mapping[str, Any], host: HostTools, environ: Mapping[str, str], found: HostPlan) -> None:
    """Add whether there is something to do about a model. Reads nothing of it: what is not recorded is to be read."""
    valid = ArgumentSpecValidator(MODEL, mutually_exclusive=EXCLUSIVE, required_together=TOGETHER).validate(
        {**model, "home": host.home}
    )
    params, problems = valid.validated_parameters, _validation_problems(valid.error_messages)
    if not problems:
        quick = {**params, "verify": "never"}
        try:
            access = ModelAccess(environ, lambda: host.library("requests"), host.hide)
            decision = decide(quick, access, preview=False)
        except (OperatorError, OSError) as error:
            problems += problems_of(error)
        else:
            problems += decision.plan.refusals
            found.warnings += decision.spec.warnings
    if problems:
        found.problems += [replace(problem, subject=model["path"]) for problem in problems]
        return
    known = params["verify"] != "always" and all(file.trusted for file in decision.seen.files)
    if decision.plan.actions or decision.plan.record or not known:
        found.plan["models"].append(model)


def _validation_problems(messages: Sequence[str]) -> list[Problem]:
    """Ansible's own messages about options, which are whole sentences."""
    return [Problem("", message[:-1] if message.endswith(".") else message) for message in messages]


def problems_of(error: OperatorError | OSError) -> Sequence[Problem]:
    """The problems that an error carries."""
    return error.problems if isinstance(error, OperatorError) else [Problem("", str(error))]


def _look_at_instance(entry: Mapping[str, Any], host: HostTools, strict: bool, found: HostPlan) -> None:
    """Add whether there is something to do about an instance, or what stands in the way."""
    name = entry["name"]
    try:
        answer = _preview(entry, host, tuple(found.takes))
    except (OperatorError, OSError) as error:
        problems = [replace(problem, subject=name) for problem in problems_of(error)]
        if found.plan["instances"] and all(_may_pass(problem, found.sure) for problem in problems):
            found.plan["instances"].append(entry)
            found.warnings += map(str, problems)
            found.sure = False
        else:
            found.problems += problems
        return
    coming = [os.path.expanduser(model["path"]) for model in found.plan["models"]]
    found.problems += [
        replace(missing, subject=name) for missing in answer.missing if strict and not _comes(missing, coming)
    ]
    absent = [str(missing) for missing in answer.missing]
    found.warnings += [f"{name}: {warning}" for warning in answer.warnings if warning not in absent]
    if answer.result["changed"] or answer.touched or answer.missing:
        found.plan["instances"].append(entry)
    found.sure = found.sure and not answer.missing and not answer.image
    if answer.takes:
        found.takes.append(answer.takes)
        rows = answer.result.get("memory") or []
        found.plan["memory"] += [{"instance": name, **row} for row in rows]
    if answer.image:
        found.plan["images"].append(_as_options(entry, answer.image))


def _may_pass(problem: Problem, sure: bool) -> bool:
    """Whether the change of an earlier instance can end the problem.

    ``sure``: what the earlier ones take of the GPUs after their change is known, and so is counted already.
    """
    return problem.may_pass and (problem.option == "port" or not sure)


def _as_options(entry: Mapping[str, Any], image: Image) -> dict[str, Any]:
    """The options of sif_image that bring the image to where the instance expects it."""
    given = {key: entry.get(f"image_{key}") for key in ("auth_file", "no_https", "ca_path")}
    options = {"path": image.path, "src": entry["image"], "sha256": image.sha256, "pull": entry.get("pull"), **given}
    return {key: value for key, value in options.items() if value is not None}


def _comes(missing: Problem, coming: Sequence[str]) -> bool:
    """Whether the missing path is one of the models that come, or a folder that they create."""
    path = missing.path or ""
    if missing.option == "model":
        return os.path.dirname(path) in [os.path.dirname(model) for model in coming]
    return missing.option == "binds" and any(model.startswith(f"{path.rstrip('/')}/") for model in coming)


def _path(entry: Mapping[str, Any]) -> Any:
    """The model's path; None for an instance that stays as it is recorded."""
    return (entry.get("model") or {}).get("path")


def _preview(entry: Mapping[str, Any], host: HostTools, before: tuple[Neighbour, ...]) -> Answer:
    """What llamacpp_instance would answer in check mode."""
    valid = ArgumentSpecValidator(INSTANCE).validate({**entry, "model": _path(entry), "home": host.home})
    if valid.error_messages:
        raise Refusal(_validation_problems(valid.error_messages))
    return reconcile(Request(valid.validated_parameters, host.home, True, host.run, host.library, host.hide, before))
