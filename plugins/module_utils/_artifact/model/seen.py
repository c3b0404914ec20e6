# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One GGUF file on the host, as it was seen: its stat, record, header, and content if that had to be read.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..._gguf import file as gguf_file
from ..._host.layout import MODEL_RECORDS
from ..._result import Problem
from ..seen_file import SeenFile, see, unreadable, with_sha256


@dataclass(frozen=True)
class SeenGguf(SeenFile):
    """``problems``: why it is no complete GGUF file; ``holes``: what only the right sha256 excuses."""

    holes: tuple[Problem, ...] = ()
    gguf: gguf_file.Gguf | None = None  # its header; not read where the record is current
    planned_source: dict[str, Any] = field(default_factory=dict)  # what its record will say, in check mode


def look(path: str, verify: str = "changed") -> SeenGguf:
    """A file by its record if that is current; else by its header, and its sha256 unless ``verify`` is never.

    A file that is no complete GGUF file is not hashed. Raises FileChanged if it is written to meanwhile.
    """
    seen = glance(path)
    if not seen.is_file or (seen.trusted and verify != "always"):
        return seen
    seen = with_header(seen)
    return seen if seen.problems or verify == "never" else with_sha256(seen)


def glance(path: str) -> SeenGguf:
    """A file by its stat and its record alone."""
    return SeenGguf(**vars(see(path, MODEL_RECORDS, "a GGUF file")))


def with_header(seen: SeenGguf) -> SeenGguf:
    """The same file with its header, and with what is wrong with it as a GGUF file."""
    try:
        found = gguf_file.read(seen.path)
        return replace(
            seen,
            gguf=found,
            problems=tuple(gguf_file.check_length(found)),
            holes=tuple(gguf_file.check_holes(seen.path, found)),
        )
    except gguf_file.GgufError as error:
        return replace(seen, problems=error.problems)
    except OSError as error:
        return replace(seen, is_file=False, problems=(unreadable(seen.path, error.strerror),))


def set_problems(files: tuple[SeenGguf, ...]) -> tuple[tuple[SeenGguf, ...], tuple[Problem, ...]]:
    """Why sound files are not one model, by their headers; and the files with the headers that were read for this."""
    files = tuple(seen if seen.gguf else with_header(seen) for seen in files)
    parts = [seen.gguf for seen in files if seen.gguf]
    return files, tuple(gguf_file.check_set(parts)) if len(parts) == len(files) else ()
