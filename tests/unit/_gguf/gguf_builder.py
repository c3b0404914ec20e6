# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small GGUF files for tests, sound or broken in a chosen way."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCALARS = {"u8": (0, "B"), "u16": (2, "H"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "?")}
SCALARS |= {"u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def typed(kind: str, value: Any) -> bytes:
    """A value with its type, as a key or an array's item has it; kind is 'str', a scalar, or 'array:<kind>'."""
    if kind == "str":
        return struct.pack("<I", 8) + text(value)
    if kind.startswith("array:"):
        inner = kind.partition(":")[2]
        if inner == "str":
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        number, code = SCALARS[inner]
        return struct.pack("<IIQ", 9, number, len(value)) + struct.pack(f"<{len(value)}{code}", *value)
    number, code = SCALARS[kind]
    return struct.pack(f"<I{code}", number, value)


def key(name: str, kind: str, value: Any) -> bytes:
    return text(name) + typed(kind, value)


def tensor(name: str, dimensions: Iterable[int], kind: int, offset: int) -> bytes:
    dimensions = list(dimensions)
    return text(name) + struct.pack(f"<I{len(dimensions)}qIQ", len(dimensions), *dimensions, kind, offset)


def header(keys: Iterable[bytes], tensors: Iterable[bytes], version: int = 3) -> bytes:
    keys, tensors = list(keys), list(tensors)
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


LLAMA = (
    key("general.architecture", "str", "llama"),
    key("general.name", "str", "Tiny"),
    key("general.file_type", "u32", 3),
    key("llama.block_count", "u32", 2),
    key("llama.context_length", "u32", 4096),
    key("llama.embedding_length", "u32", 64),
    key("llama.attention.head_count", "u32", 4),
    key("llama.attention.head_count_kv", "u32", 2),
    key("tokenizer.ggml.tokens", "array:str", ["a", "b", "<end>"]),
    key("tokenizer.ggml.scores", "array:f32", [0.0, 1.0, 2.0]),
    key("tokenizer.chat_template", "str", "{{ messages }}"),
)
# One tensor of 64 x 2 F32 (512 bytes) and one of 32 x 1 Q4_1 (20 bytes).
TENSORS = (tensor("one", [64, 2], 0, 0), tensor("two", [32], 3, 512))
DATA = bytes(range(256)) * 2 + padded(b"\x11" * 20)
REQUIRED_AFTER_HEADER = 532


def model(extra: Iterable[bytes] = (), data: bytes = DATA) -> bytes:
    """A small sound model; ``data`` makes one differ from another."""
    return padded(header((*LLAMA, *extra), TENSORS)) + data


def split(folder: Path, count: int = 3, name: str = "big", filler: int = 0x22) -> list[Path]:
    """A split model of one tensor in each part."""
    paths = []
    for part in range(count):
        keys = [*(LLAMA if part == 0 else ()), key("split.no", "u16", part), key("split.count", "u16", count)]
        keys.append(key("split.tensors.count", "i32", count))
        content = padded(header(keys, [tensor(f"t{part}", [64], 0, 0)])) + bytes([filler + part]) * 256
        paths.append(folder / f"{name}-{part + 1:05d}-of-{count:05d}.gguf")
        paths[-1].write_bytes(content)
    return paths
