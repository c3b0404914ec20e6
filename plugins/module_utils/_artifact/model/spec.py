# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator asks a model to be: the options in canonical form, and what is wrong with them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..._gguf.file import GgufError, split_paths
from ..._result import Problem
from ..option_checks import check, check_sha256
from .sources import source_of
from .sources.source import FileSpec, ModelAccess, ModelSource

__all__ = ["FileSpec", "ModelAccess", "ModelSource", "ModelSpec", "identified", "model_spec"]


@dataclass(frozen=True)
class ModelSpec:
    """A model: all its files, in order, and where they come from if that is given.

    ``warnings``: what the operator should know, and what stops nothing.
    """

    state: str  # present | absent
    verify: str  # changed | always | never
    files: tuple[FileSpec, ...]
    source: ModelSource | None = None
    offline: bool = False
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def model_spec(params: Mapping[str, Any], access: ModelAccess) -> ModelSpec:
    """The spec of gguf_model's options. A split model has all its parts. Asks nothing; identified() does."""
    path, present = params["path"], params["state"] == "present"
    problems = check(params)
    try:
        paths = split_paths(path)
    except GgufError as error:
        problems += [replace(one, option="path") for one in error.problems]
        paths = [path]
    files = tuple(map(FileSpec, paths))
    source = None
    if present:
        digests = [digest.lower() for digest in params["sha256"]]
        problems += _digest_problems(params["sha256"], len(files))
        if len(digests) == len(files):
            files = tuple(FileSpec(path, sha256) for path, sha256 in zip(paths, digests))
        source, wrong = source_of(params, files, access)
        problems += wrong
    offline = _is_offline(params["offline"], access.environ)
    return ModelSpec(params["state"], params["verify"], files, source, offline, tuple(problems))


def identified(spec: ModelSpec) -> ModelSpec:
    """The spec with what its source says about the files now. Raises OperatorError."""
    if spec.source is None or spec.problems:
        return spec
    found = spec.source.identify(spec.files, verify=spec.verify, offline=spec.offline)
    return replace(
        spec,
        files=found.files,
        source=found.source,
        problems=found.problems,
        warnings=(*spec.warnings, *found.warnings),
    )


def _is_offline(option: bool | None, environ: Mapping[str, str]) -> bool:
    """The option, else the environment variable of the hub's own tools."""
    if option is None:
        return environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")
    return option


def _digest_problems(sha256: Sequence[str], files: int) -> list[Problem]:
    problems = [problem for digest in sha256 for problem in check_sha256(digest)]
    if sha256 and len(sha256) != files:
        text = f"it has {len(sha256)} digest(s), and the model has {files} file(s)"
        problems.append(Problem("sha256", text, "Give one for each file, in order."))
    return problems
