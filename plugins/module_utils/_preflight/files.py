# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host has to offer for a spec: runtime, image, model, server inside the image. Reads, and changes nothing.

Private to gpufleet.llamacpp; may change at any time.

What the last record of the instance knows about a file holds as long as the file's stat is the same, so a re-run reads
neither image nor model and asks the image nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._artifact.image import resolve as images
from .._artifact.image import sif
from .._artifact.image.inspect import Remember
from .._artifact.image.resolve import Image
from .._artifact.model import observe as model_observe
from .._gguf import file as gguf
from .._host import runtime
from .._host.runtime import Run
from .._spec.spec import Spec
from . import key_file

# What of the model's summary the gate compares the running server with, and what a status shows.
SUMMARY = ("name", "architecture", "quantization", "parameters", "context_length", "tensor_bytes")


@dataclass(frozen=True)
class Survey:
    """The files that the instance needs. missing: not there (yet); problems: there, but of no use."""

    runtime: str | None
    image: dict[str, Any] | None
    model: dict[str, Any] | None
    missing: tuple[str, ...]
    problems: tuple[str, ...]


def look(spec: Spec, run: Run, last: Mapping[str, Any] | None, image: Image, remember: Remember) -> Survey:
    """Look at runtime, image and model. ``last`` is the instance's record.

    Raises OSError, and FileChanged for a file that is being written to.
    """
    missing: list[str] = []
    problems: list[str] = []
    program = runtime.find()
    if program is None:
        problems.append(
            "This host has neither apptainer nor singularity (looked in PATH, "
            + ", ".join(runtime.SEARCH)
            + "). Install one, or have the site's administrator do it."
        )
    known = last or {}
    model = _model(spec, known.get("model"), missing, problems)
    found, absent, wrong = images.facts(image, spec.server_path, run, program, known.get("image") or {}, remember)
    missing += absent
    problems += wrong
    if spec.api_key_file and not os.path.exists(spec.api_key_file):
        missing.append(
            f"api_key_file: {spec.api_key_file} is not there. Write one key a line into it, for no other eyes."
        )
    elif spec.api_key_file:
        problems += key_file.problems(spec.api_key_file)
    outside = [bind.split(":")[0] for bind in spec.binds]
    missing += [
        f"binds: {path} is not there on the host. Make it, or take the bind out."
        for path in outside
        if not os.path.exists(path)
    ]
    return Survey(program, found, model, tuple(missing), tuple(problems))


def _model(
    spec: Spec, known: Mapping[str, Any] | None, missing: list[str], problems: list[str]
) -> dict[str, Any] | None:
    try:
        paths = gguf.split_paths(spec.model)
    except gguf.GgufError as error:
        problems.append(f"model: {error}")
        return None
    if paths[0] != spec.model:
        problems.append(f"model: {spec.model} is not the first part; llama-server wants {paths[0]}.")
        return None
    absent = [path for path in paths if not os.path.exists(path)]
    if absent:
        missing.append(f"model: {', '.join(absent)} is not there. Fetch it with gpufleet.llamacpp.gguf_model first.")
        return None
    if known and _stamps(known) == {path: sif.stamp(path) for path in paths}:
        return dict(known)
    files = [model_observe.look(path) for path in paths]
    wrong = [problem for file in files for problem in (*file.problems, *file.holes) if problem]
    if wrong:
        problems += [f"model: {problem}" for problem in wrong]
        return None
    facts = model_observe.describe(spec.model, files)
    return {
        "path": spec.model,
        "files": [{"path": file.path, "stamp": list(file.stamp), "sha256": file.sha256} for file in files],
        "sha256": files[0].sha256 if len(files) == 1 else _digest_of_all(files),
        "size": sum(file.size for file in files),
        **{key: facts.get(key) for key in SUMMARY},
    }


def _stamps(known: Mapping[str, Any]) -> dict[Any, Any]:
    """The stat values that the record has for the model's files."""
    return {file.get("path"): file.get("stamp") for file in known.get("files") or []}


def _digest_of_all(files: Sequence[model_observe.SeenFile]) -> str:
    """One number for a split model: the sha256 of its parts' digests, as sha256sum would print them, in order."""
    return hashlib.sha256("".join(f"{file.sha256}\n" for file in files).encode()).hexdigest()
