# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a spec needs: container runtime, image, model, API keys, binds. Reads, and changes nothing.

Private to gpufleet.llamacpp; may change at any time.

What the instance's record has of a file is valid while the file's stat is the same. So a second run reads neither the
image nor the model. How llama-server reads a key file: llama.cpp common/arg.cpp.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._artifact import file_record
from .._artifact.image import resolve as images
from .._artifact.image.inspect import Remember
from .._artifact.image.resolve import Image
from .._artifact.model.describe import describe
from .._artifact.model.seen import SeenGguf
from .._artifact.model.seen import look as look_at_model
from .._gguf import file as gguf
from .._host import runtime
from .._host.runtime import Run
from .._result import Problem
from .._spec.record import Record
from .._spec.spec import Spec

# The parts of the model's summary that the record has: the gate compares the server with them, status shows them.
SUMMARY = ("name", "architecture", "quantization", "parameters", "context_length", "tensor_bytes")


@dataclass(frozen=True)
class FoundFiles:
    """The files that the instance needs. missing: not there, or not yet; problems: there, but unusable."""

    runtime: str | None
    image: dict[str, Any] | None
    model: dict[str, Any] | None
    missing: tuple[Problem, ...]
    problems: tuple[Problem, ...]


def find_files(spec: Spec, run: Run, last: Record | None, image: Image, remember: Remember) -> FoundFiles:
    """Find the files. ``last``: the instance's record. ``remember`` gets the reading of an image that had to be read.

    Raises OSError, and FileChanged for a file that is being written.
    """
    missing: list[Problem] = []
    problems: list[Problem] = []
    program = runtime.find()
    if program is None:
        text = f"This host has neither apptainer nor singularity (searched PATH, {', '.join(runtime.SEARCH)})"
        problems.append(Problem("", text, "Install one, or ask the site's administrator to do it."))
    known_model = last.model.to_json() if last and last.model else None
    known_image = last.image.to_json() if last and last.image else {}
    model = _model(spec, known_model, missing, problems)
    found, absent, wrong = images.facts(image, spec.server_path, run, program, known_image, remember)
    missing += absent
    problems += wrong
    keys = spec.api_key_file
    if keys and not os.path.exists(keys):
        remedy = "Write one key per line into it, and let only the server's user read it."
        missing.append(Problem("api_key_file", f"{keys} is not there", remedy, keys))
    elif keys:
        problems += check_keys(keys)
    missing += [
        Problem("binds", f"{path} is not there on the host", "Create it, or remove the bind.", path)
        for path in (bind.split(":")[0] for bind in spec.binds)
        if not os.path.exists(path)
    ]
    return FoundFiles(program, found, model, tuple(missing), tuple(problems))


def check_keys(path: str) -> list[Problem]:
    """Whether llama-server would ignore the keys in this file, or accept no request at all."""
    try:
        # Unlike Python, llama-server does not read a carriage return as the end of a line.
        with open(path, encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")
    except (OSError, ValueError) as error:
        remedy = "Let the user that runs this task read it."
        return [Problem("api_key_file", f"{path} cannot be read ({error})", remedy, path)]
    keys = [line for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        text = f"{path} has no key (it is empty or has only comments), and llama-server would accept every request"
        return [Problem("api_key_file", text, "Write one key per line into it.", path)]
    if any(key != key.strip() for key in keys):
        text = (
            f"a key in {path} begins or ends with a space or a carriage return; llama-server reads that as part of the "
            "key and would accept no request"
        )
        return [Problem("api_key_file", text, "Remove it (dos2unix removes carriage returns).", path)]
    return []


def _model(
    spec: Spec, known: Mapping[str, Any] | None, missing: list[Problem], problems: list[Problem]
) -> dict[str, Any] | None:
    """The model's facts for the record; None, and an entry in one of the lists, where it is not there or not sound."""
    try:
        paths = gguf.split_paths(spec.model)
    except gguf.GgufError as error:
        problems += [replace(one, option="model") for one in error.problems]
        return None
    if paths[0] != spec.model:
        text = f"{spec.model} is not the first part of the model"
        problems.append(Problem("model", text, f"llama-server needs {paths[0]}.", spec.model))
        return None
    absent = [path for path in paths if not os.path.exists(path)]
    if absent:
        remedy = "Fetch it with gpufleet.llamacpp.gguf_model first."
        missing.append(Problem("model", f"{', '.join(absent)} is not there", remedy, absent[0]))
        return None
    if known and _stamps(known) == {path: file_record.stamp(path) for path in paths}:
        return dict(known)
    files = [look_at_model(path) for path in paths]
    wrong = [problem for file in files for problem in (*file.problems, *file.holes)]
    if wrong:
        problems += [replace(problem, option="model") for problem in wrong]
        return None
    facts = describe(spec.model, files)
    return {
        "path": spec.model,
        "files": [{"path": file.path, "stamp": list(file.stamp), "sha256": file.sha256} for file in files],
        "sha256": files[0].sha256 if len(files) == 1 else _digest_of_all(files),
        "size": sum(file.size for file in files),
        **{key: facts.get(key) for key in SUMMARY},
    }


def _stamps(known: Mapping[str, Any]) -> dict[Any, Any]:
    """The stat values that the record has of the model's files."""
    return {file.get("path"): file.get("stamp") for file in known.get("files") or []}


def _digest_of_all(files: Sequence[SeenGguf]) -> str:
    """One digest for a split model: the sha256 of its parts' digests in order, one a line."""
    return hashlib.sha256("".join(f"{file.sha256}\n" for file in files).encode()).hexdigest()
