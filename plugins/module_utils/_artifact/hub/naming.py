# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in a model hub: patterns, commits, the files of one model, and the address of a file. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from urllib.parse import quote

from ..._gguf.file import split_paths
from ..._result import OperatorError, Problem

ENDPOINT = "https://huggingface.co"
NAMES_SHOWN = 5


def is_pattern(file: str) -> bool:
    """Whether the name is a pattern that other names match."""
    return any(one in file for one in "*?[")


def is_commit(revision: str) -> bool:
    """Whether the revision is a full commit, which always means the same files."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def resolve_url(endpoint: str, repo: str, revision: str, file: str) -> str:
    """The address of a file of a repository. It needs no token where the repository is public."""
    return f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def names_of_model(file: str, names: Sequence[str], where: str) -> list[str]:
    """The files, in order, of the one model that ``file`` (a name, any part, or a pattern) means.

    Raises OperatorError if ``names``, which are those of ``where``, have none, not all, or more than one of it.
    """
    found = sorted(name for name in names if name.endswith(".gguf") and fnmatch.fnmatchcase(name, file))
    if not is_pattern(file) or (not found and file in names):
        found = [file]
    models: dict[str, list[str]] = {}
    for name in found:
        parts = split_paths(name)
        models[parts[0]] = parts
    if len(models) > 1:
        text = f"{file} means {len(models)} models of {where}: {_some(sorted(models))}"
        raise OperatorError(Problem("file", text, "Narrow the pattern to one."))
    wanted = next(iter(models.values()), [file])
    missing = [name for name in wanted if name not in names]
    if missing and len(missing) == len(wanted):
        raise OperatorError(Problem("file", f"{where} has no file {file}", _near(file, names)))
    if missing:
        text = f"{where} has no {_some(missing)} of the split model {wanted[0]}"
        raise OperatorError(Problem("file", text, "It was not uploaded completely. Choose another model or revision."))
    return wanted


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _near(file: str, names: Sequence[str]) -> str:
    models = [name for name in names if name.endswith(".gguf")]
    if not models:
        return "It has no GGUF file at all; choose another repository, whose name often ends with -GGUF."
    plain = {name.rpartition("/")[2].lower(): name for name in models}
    wanted = file.rpartition("/")[2].lower()
    near = [plain[one] for one in difflib.get_close_matches(wanted, plain, NAMES_SHOWN, 0.6)]
    return f"Similar names: {', '.join(near)}." if near else f"It has {_some(models)}."
