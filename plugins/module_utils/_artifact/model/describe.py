# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model as the modules return it, out of its records and headers.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._gguf import file as gguf_file
from .seen import SeenGguf, with_header

# The version of the summary in a record; a record with another one is not used. Raise it when summary() changes.
READER = 1


def summary_of(files: Sequence[SeenGguf]) -> dict[str, Any] | None:
    """The summary in the records; None where a record is not current or has another version."""
    first = files[0].record
    if first is None or not all(seen.trusted for seen in files) or first.details.get("reader") != READER:
        return None
    return dict(first.details.get("summary") or {}) or None


def describe(path: str, files: Sequence[SeenGguf]) -> dict[str, Any]:
    """The model as a module returns it. ``files`` are all its files, in order; sizes in bytes."""
    there = [seen for seen in files if seen.exists]
    facts = summary_of(files)
    if facts is None:
        parts = [seen.gguf or (with_header(seen).gguf if seen.size else None) for seen in there]
        found = [part for part in parts if part]
        complete = found and len(found) == len(files)
        facts = gguf_file.summary(found) if complete else dict.fromkeys(gguf_file.SUMMARY_KEYS)
    digests = [seen.sha256 for seen in files]
    sources = (seen.planned_source or (seen.source if seen.sha256 else {}) for seen in files)
    source = next(filter(None, sources), {})
    return {
        "path": path,
        "state": "present" if there else "absent",
        "files": [{"path": seen.path, "size": seen.size or None, "sha256": seen.sha256} for seen in there],
        "size": sum(seen.size for seen in there) or None,
        "sha256": digests[0] if len(digests) == 1 else None,
        "source": source.get("url") or source.get("src"),
        "revision": source.get("revision"),
        **facts,
    }


def for_diff(files: Sequence[SeenGguf]) -> dict[str, Any]:
    """The model's files for one side of ``--diff``; None is what cannot be known yet."""
    return {seen.path: {"size": seen.size or None, "sha256": seen.sha256} for seen in files if seen.is_file}
