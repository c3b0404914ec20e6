# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""gguf_model_info from its option to its result: the models of a folder, by their headers and records.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..._gguf import file as gguf_file
from ..._result import Problem, failure
from .describe import describe, summary_of
from .seen import look, set_problems


def run_module(module: AnsibleModule) -> None:
    """Do what gguf_model_info was asked to do; ends the module."""
    path = module.params["path"]
    if not path.startswith("/"):
        module.fail_json(**failure([Problem("path", f"{path!r} is not absolute", "Write the whole path.")]))
    try:
        models = inventory(path)
    except OSError as error:
        text = f"{path} cannot be listed ({error.strerror})"
        module.fail_json(**failure([Problem("path", text, "Run the task as a user who may read it.", path)]))
    module.exit_json(changed=False, models=models)


def inventory(path: str) -> list[dict[str, Any]]:
    """Every model that ``path`` names, or that is in the folder ``path``, each with its problems as sentences.

    Reads headers and records only, so it takes the same time for every size. Raises OSError if a folder is unreadable.
    """
    paths = [path]
    if os.path.isdir(path):
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".gguf")]
    models: dict[str, dict[str, Any]] = {}
    for one in paths:
        try:
            parts = gguf_file.split_paths(one)
        except gguf_file.GgufError:
            parts = [one]
        if parts[0] not in models:
            models[parts[0]] = _entry(parts)
    return list(models.values())


def _entry(parts: Sequence[str]) -> dict[str, Any]:
    files = tuple(look(part, verify="never") for part in parts)
    wrong: tuple[Problem, ...] = ()
    if summary_of(files) is None and all(seen.is_file and not seen.problems for seen in files):
        files, wrong = set_problems(files)
    problems = [problem for seen in files for problem in (*seen.problems, *seen.holes)]
    there = [seen for seen in files if seen.exists]
    if there:
        remedy = "It belongs to this model. Get it again."
        problems += [Problem("", f"{seen.path} is not there", remedy) for seen in files if not seen.exists]
    return {**describe(parts[0], files), "problems": [str(problem) for problem in (*problems, *wrong)]}
