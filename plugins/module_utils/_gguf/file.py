# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One GGUF model: the names of its files, whether they are complete, and a summary of their headers.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from .._result import Problem
from .header import INTERRUPTED, Gguf, GgufError, read
from .kv_cache import kv_cache
from .types import FILE_TYPES, GUESSED, TENSOR_TYPES, is_integer

__all__ = [
    "SUMMARY_KEYS",
    "Gguf",
    "GgufError",
    "check_holes",
    "check_length",
    "check_set",
    "read",
    "split_paths",
    "summary",
]

SUMMARY_KEYS = (
    "architecture",
    "name",
    "quantization",
    "parameters",
    "layers",
    "experts",
    "experts_used",
    "context_length",
    "chat_template",
    "tensor_bytes",
    "kv_bytes_per_token",
    "kv_window_bytes_per_token",
    "sliding_window",
)

# The name of one part of a split model, as llama_split_path in llama.cpp writes it.
SPLIT_NAME = re.compile(r"^(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf$")


def split_paths(path: str) -> list[str]:
    """All parts, in order, of the model of which ``path`` is any part; ``[path]`` for an unsplit one.

    Works for paths and for URLs. Raises GgufError for an impossible name, such as part 4 of 3.
    """
    base, mark, query = path.partition("?") if "://" in path else (path, "", "")
    folder, slash, name = base.rpartition("/")
    match = SPLIT_NAME.match(name)
    if not match:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        raise GgufError(
            f"{path} is named as part {number} of {count}, expected is 1 to {count}", "Correct the name.", path
        )
    start = f"{folder}{slash}{match['prefix']}"
    return [f"{start}-{part:05d}-of-{count:05d}.gguf{mark}{query}" for part in range(1, count + 1)]


def check_length(gguf: Gguf) -> list[Problem]:
    """Whether the file contains its last tensor. It may be longer: there is padding, and tools append data."""
    if gguf.size >= gguf.required_size:
        return []
    percent = 100 * gguf.size // gguf.required_size
    remedy = INTERRUPTED
    if ".gguf." in os.path.basename(gguf.path):
        remedy = "If it is a piece of a file that was cut for upload, join all pieces in their order (cat) to one file."
    text = (
        f"{gguf.path} is cut short: it has {gguf.size} bytes of the {gguf.required_size} that its header describes "
        f"({percent} %)"
    )
    return [Problem("", text, remedy, gguf.path)]


def check_holes(path: str, gguf: Gguf, seek: Callable[[int, int, int], int] = os.lseek) -> list[Problem]:
    """Whether all bytes of the tensors were written. Raises OSError if the file cannot be opened.

    A download that reserves its space first, and a power cut before a sync, leave files of the right size with holes.
    The number of allocated blocks is no proof: compressing file systems (btrfs, zfs) allocate less than the size for
    sound files, and delayed allocation less for fresh ones. SEEK_HOLE counts unwritten extents as holes, unsynced pages
    and compressed extents as data, and a file system without it reports no hole. zfs, and copies made sparse, also turn
    a sound model's own runs of zeros into holes: only the sha256 can prove those.
    """
    holes: list[tuple[int, int]] = []
    end = min(gguf.required_size, gguf.size)
    handle = os.open(path, os.O_RDONLY)
    try:
        position = 0
        while position < end:
            try:
                hole = seek(handle, position, os.SEEK_HOLE)
            except OSError:
                break
            if hole >= end:
                break
            try:
                position = min(seek(handle, hole, os.SEEK_DATA), end)
            except OSError:  # ENXIO: no data from here to the end
                position = end
            holes.append((hole, position))
    finally:
        os.close(handle)
    if not holes:
        return []
    missing = sum(stop - start for start, stop in holes)
    start = holes[0][0]
    names = [tensor.name for tensor in gguf.tensors if gguf.data_offset + tensor.offset + tensor.size > start][:1]
    where = f" (tensor {names[0]!r})" if names and start >= gguf.data_offset else ""
    text = f"{path} has holes: {missing} of its {end} bytes were never written, the first at byte {start}{where}"
    remedy = (
        "An interrupted download or a power cut leaves such files. Get the file again, or give its sha256 if these "
        "zeros belong to the model."
    )
    return [Problem("", text, remedy, path)]


def check_set(parts: Sequence[Gguf]) -> list[Problem]:
    """Whether these files, in this order, are the parts of one model (llama-model-loader.cpp)."""
    first, path = parts[0].metadata, parts[0].path
    count = _number(first, "split.count") or 1
    if count != len(parts):
        if len(parts) == 1:
            text = f"{path} is one part of a model of {count} files, and its name does not show that"
            remedy = f"Put all parts in one folder, and name them <name>-00001-of-{count:05d}.gguf and so on."
        else:
            text = f"{path} is a part of a model of {count} files, and its name is that of a model of {len(parts)}"
            remedy = "Get all parts again."
        return [Problem("", text, remedy, path)]
    problems = []
    if count > 1:
        for index, part in enumerate(parts):
            number = _number(part.metadata, "split.no")
            of = _number(part.metadata, "split.count")
            if number != index or of != count:
                text = (
                    f"{part.path} is named as part {index + 1} of {count}, and its header has split.no {number} and "
                    f"split.count {of}, expected are {index} and {count}"
                )
                problems.append(Problem("", text, "Get this part again.", part.path))
        expected, found = _number(first, "split.tensors.count"), sum(len(part.tensors) for part in parts)
        if not problems and expected is not None and expected != found:
            text = f"The {count} parts of {path} have {found} tensors, expected are {expected}"
            problems.append(Problem("", text, "They are parts of different models. Get all parts again.", path))
    return problems


def summary(parts: Sequence[Gguf]) -> dict[str, Any]:
    """The facts about a model in its files' headers; None for a key that they do not have.

    ``tensor_bytes`` is the size of the weights. ``kv_bytes_per_token`` is the size of one token of context in an f16 KV
    cache, and ``kv_window_bytes_per_token`` its size in layers with a sliding window, which hold about
    ``sliding_window`` tokens at most.
    """
    metadata = parts[0].metadata
    architecture = _text(metadata, "general.architecture")

    def number(key: str) -> int | None:
        return _number(metadata, f"{architecture}.{key}")

    cache = kv_cache(metadata)
    return {
        "architecture": architecture,
        "name": _text(metadata, "general.name"),
        "quantization": _quantization(parts),
        "parameters": sum(part.parameters for part in parts),
        "layers": number("block_count"),
        "experts": number("expert_count"),
        "experts_used": number("expert_used_count"),
        "context_length": number("context_length"),
        "chat_template": "tokenizer.chat_template" in metadata,
        "tensor_bytes": sum(part.tensor_bytes for part in parts),
        "kv_bytes_per_token": cache.bytes_per_token() if cache else None,
        "kv_window_bytes_per_token": cache.window_bytes_per_token() if cache else None,
        "sliding_window": cache.window or None if cache else None,
    }


def _quantization(parts: Sequence[Gguf]) -> str | None:
    """The name of the file type (Q4_K_M); the most frequent type of the weights if the file has none."""
    file_type = _number(parts[0].metadata, "general.file_type")
    if file_type is not None and file_type & ~GUESSED in FILE_TYPES:
        return FILE_TYPES[file_type & ~GUESSED]
    elements: Counter[int] = Counter()
    for part in parts:
        for tensor in part.tensors:
            elements[tensor.type] += tensor.elements
    return TENSOR_TYPES[elements.most_common(1)[0][0]][0] if elements else None


def _number(metadata: dict[str, Any], key: str) -> int | None:
    value = metadata.get(key)
    return value if is_integer(value) else None


def _text(metadata: dict[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None
