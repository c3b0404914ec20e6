# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one GGUF model is: its files, whether they are whole, and what they say.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from .header import Gguf, GgufError, read
from .kv_cache import kv_cache
from .types import FILE_TYPES, GUESSED, TENSOR_TYPES, is_integer

__all__ = [
    "SUMMARY_KEYS",
    "Gguf",
    "GgufError",
    "check_holes",
    "check_length",
    "check_set",
    "check_whole",
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

# As llama_split_path in llama.cpp writes it: the name of one part of a split model.
SPLIT_NAME = re.compile(r"^(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf$")


def split_paths(path: str) -> list[str]:
    """All the parts, first one first, of the model that ``path`` names any part of; ``[path]`` for an unsplit one.

    Works on paths and on addresses. Raises GgufError for a part that its own name makes impossible, such as 4 of 3.
    """
    base, mark, query = path.partition("?") if "://" in path else (path, "", "")
    folder, slash, name = base.rpartition("/")
    match = SPLIT_NAME.match(name)
    if not match:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        raise GgufError(f"{path} names part {number} of {count}; parts are counted from 1 to {count}.")
    start = f"{folder}{slash}{match['prefix']}"
    return [f"{start}-{part:05d}-of-{count:05d}.gguf{mark}{query}" for part in range(1, count + 1)]


def check_whole(path: str, gguf: Gguf) -> list[str]:
    """Every reason why the file at ``path`` cannot hold the tensors of its header: cut short, or with holes in it."""
    return check_length(gguf) or check_holes(path, gguf)


def check_length(gguf: Gguf) -> list[str]:
    """Whether the file reaches to its last tensor's end; longer is legal (padding, and what tools append)."""
    if gguf.size >= gguf.required_size:
        return []
    percent = 100 * gguf.size // gguf.required_size
    hint = "The download was interrupted; get the file again."
    if ".gguf." in os.path.basename(gguf.path):
        hint = "If it is one piece of a file that was cut for upload, join the pieces in order (cat) to one .gguf file."
    return [
        f"{gguf.path} is cut short: it has {gguf.size} bytes of the {gguf.required_size} that its header describes "
        f"({percent} %). {hint}"
    ]


def check_holes(path: str, gguf: Gguf, seek: Callable[[int, int, int], int] = os.lseek) -> list[str]:
    """Whether some of the tensors' bytes were never written. Raises OSError where the file cannot be opened.

    A download that reserves its space first, and a power cut before a sync, leave files of the right size with holes.
    The number of allocated blocks does not tell: compressing file systems (btrfs, zfs) allocate less than the size for
    sound files, and delayed allocation less for fresh ones. SEEK_HOLE does: it counts unwritten extents as holes,
    unsynced pages and compressed extents as data, and a file system without it answers that there is none.
    zfs, and copies made sparse, also turn a sound model's own runs of zeros into holes: only the sha256 tells.
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
    return [
        f"{path} has holes: {missing} of its {end} bytes were never written, the first at byte {start}{where}. An "
        "interrupted download or a power cut leaves such files; get the file again, or give its sha256 if these zeros "
        "belong to the model."
    ]


def check_set(parts: Sequence[Gguf]) -> list[str]:
    """Every reason why these files, in this order, are not the parts of one model (llama-model-loader.cpp)."""
    first = parts[0].metadata
    count = _number(first, "split.count") or 1
    if count != len(parts):
        if len(parts) == 1:
            return [
                f"{parts[0].path} is one part of a model in {count} files, and its name does not say so. Give the "
                f"parts their names back (<name>-00001-of-{count:05d}.gguf and so on, in one folder)."
            ]
        return [
            f"{parts[0].path} belongs to a model in {count} files, and its name says {len(parts)}. Get the set again."
        ]
    problems = []
    if count > 1:
        for index, part in enumerate(parts):
            number = _number(part.metadata, "split.no")
            if number != index or _number(part.metadata, "split.count") != count:
                problems.append(
                    f"{part.path} stands where part {index + 1} of {count} belongs; its header has split.no {number} "
                    f"and split.count {_number(part.metadata, 'split.count')}. Get this part again."
                )
        wanted, found = _number(first, "split.tensors.count"), sum(len(part.tensors) for part in parts)
        if not problems and wanted is not None and wanted != found:
            problems.append(
                f"The {count} parts of {parts[0].path} hold {found} tensors, and the model has {wanted}. "
                "They are parts of different files; get the set again."
            )
    return problems


def summary(parts: Sequence[Gguf]) -> dict[str, Any]:
    """What the headers of a model's files say, for the operator; keys that a file does not have are None.

    ``tensor_bytes`` is the size of the weights in bytes. ``kv_bytes_per_token`` is what one token of context costs in
    an f16 KV cache, and ``kv_window_bytes_per_token`` what it costs in layers with a sliding window, which hold about
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
    """The file type's name as in file names (Q4_K_M); the weights' most frequent type where none is recorded."""
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
