# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of models: one file for each kind, and its line in SOURCES.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...._result import Problem
from .file import HostFiles
from .hub import HubFiles
from .source import FileSpec, ModelAccess, ModelSource
from .url import UrlFiles

SOURCES = (UrlFiles, HostFiles, HubFiles)


def source_of(
    params: Mapping[str, Any], files: Sequence[FileSpec], access: ModelAccess
) -> tuple[ModelSource | None, list[Problem]]:
    """The source that gguf_model's options give, or None; and every problem of these options."""
    found = [source for kind in SOURCES if (source := kind.of(params, files, access)) is not None]
    problems = [problem for source in found for problem in source.problems()]
    if len(found) > 1:
        options = " and ".join(source.option for source in found)
        text = f"{options} are given, and a model comes from one place"
        problems.append(Problem(found[1].option, text, "Give only one of them."))
    if params["mirrors"] and not any(source.is_remote for source in found):
        text = "mirrors are given, and neither repo nor url is"
        problems.append(Problem("mirrors", text, "Give the repo or url that they are mirrors of."))
    return (found[0] if found else None), problems
