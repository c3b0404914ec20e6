# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the header of a GGUF file.

Private to gpufleet.llamacpp; may change at any time.

The reader walks over the vocabulary without building an object for each token, so a header takes tens of milliseconds
and a few MiB. It does not map the file, because truncating a mapped file kills its reader with SIGBUS. Layout and
limits are those of llama.cpp's gguf.cpp, whose loader refuses the same files.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from .._result import OperatorError, Problem
from .types import TENSOR_TYPES, is_integer

# llama.cpp allows 2^30 bytes in a string and 2^30 items in an array. A real header has a few MiB. These bounds are far
# above any model, and limit the memory and the time that a hostile file can cost.
MAX_HEADER = 128 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_KEY_BYTES = (1 << 16) - 1
# Arrays of numbers with an item for each layer are kept, and texts as long as a chat template. Longer ones are counted.
KEPT_ITEMS = 4096
KEPT_BYTES = 1 << 20
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 63
DEFAULT_ALIGNMENT = 32
READ_BYTES = 1 << 20

STRING = 8
ARRAY = 9
BOOL = 7
# GGUF value type -> struct code (gguf.h, enum gguf_type).
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    BOOL: "?",
    10: "Q",
    11: "q",
    12: "d",
}
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

AGAIN = "Get the file again."
INTERRUPTED = "The download was interrupted. Get the file again."
UNPACK = "Unpack it first."
# What a failed download can leave in place of a model: its first bytes, what it is, and what to do.
NOT_GGUF: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer", "Get the large files of the repository (git lfs pull)."),
    (b"<", "an HTML or XML page", "The server sent an error page or a login page; check the address and the access."),
    (b"{", "a JSON text", "The server sent an error message; check the address and the access."),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"lmgg", "a GGML file from before GGUF, which llama.cpp no longer loads", "Get a GGUF file of this model."),
    (b"tjgg", "a GGJT file from before GGUF, which llama.cpp no longer loads", "Get a GGUF file of this model."),
    (
        b"\x00\x00\x00\x00",
        "empty at its start (zeros)",
        "An interrupted download or a power cut leaves such files. Get the file again.",
    ),
)


class GgufError(OperatorError):
    """The file is not a usable GGUF file. ``text`` starts with the path that is shown to the operator."""

    def __init__(self, text: str, remedy: str = AGAIN, path: str | None = None) -> None:
        super().__init__(Problem("", text, remedy, path))


class Array(NamedTuple):
    """An array of the metadata, or a very long text (as its bytes), that was counted and not kept."""

    type: int
    items: int


class Tensor(NamedTuple):
    """One tensor: ``offset`` in bytes from the start of the data, ``size`` in bytes without padding."""

    name: str
    type: int
    offset: int
    size: int
    elements: int


@dataclass(frozen=True)
class Gguf:
    """The header of one GGUF file. Sizes are in bytes."""

    path: str
    size: int  # of the file, when the header was read
    version: int
    metadata: dict[str, Any]  # scalars, strings, short arrays of numbers as tuples; else Array
    tensors: tuple[Tensor, ...]
    data_offset: int

    @property
    def required_size(self) -> int:
        """The least size of the whole file: up to the last byte of the last tensor (llama-model-loader.h)."""
        if not self.tensors:
            return self.data_offset
        last = self.tensors[-1]
        return self.data_offset + last.offset + last.size

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)


class _Reader:
    """A window on the file that moves forward. The file's size and MAX_HEADER limit every read."""

    def __init__(self, file: BinaryIO, path: str, size: int) -> None:
        self.file = file
        self.path = path
        self.size = size
        self.buffer = b""
        self.start = 0  # of the buffer, in the file
        self.position = 0  # in the buffer

    def error(self, text: str, remedy: str = AGAIN) -> GgufError:
        """An error about this file; ``text`` follows its path."""
        return GgufError(f"{self.path} {text}", remedy, self.path)

    def damaged(self, text: str) -> GgufError:
        """An error about a value that llama.cpp does not accept either."""
        return self.error(f"is damaged: {text}")

    def tell(self) -> int:
        return self.start + self.position

    def require(self, count: int) -> None:
        """Make ``count`` bytes available at the position."""
        if self.position + count <= len(self.buffer):
            return
        offset = self.tell()
        if offset + count > self.size:
            text = f"is cut short inside its header: it has {self.size} bytes of at least {offset + count}"
            raise self.error(text, INTERRUPTED)
        if offset + count > MAX_HEADER:
            raise self.error(f"has a header of more than {MAX_HEADER >> 20} MiB, which no model has")
        if self.position > len(self.buffer):
            self.file.seek(offset)
            rest = b""
        else:
            rest = self.buffer[self.position :]
        self.buffer = rest + self.file.read(max(count - len(rest), READ_BYTES))
        self.start = offset
        self.position = 0
        if len(self.buffer) < count:
            raise self.error("became shorter while it was read", "Run the task again when no program writes to it.")

    def take(self, count: int) -> bytes:
        self.require(count)
        data = self.buffer[self.position : self.position + count]
        self.position += count
        return data

    def u32(self) -> int:
        return int(U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(U64.unpack(self.take(8))[0])

    def text(self, limit: int, what: str) -> str:
        length = self.u64()
        if length > limit:
            raise self.damaged(f"{what} has {length} bytes, and at most {limit} are allowed")
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.damaged(f"{what} is not valid UTF-8 ({data[:40]!r})") from None

    def skip(self, count: int) -> None:
        """Skip bytes that must exist, without reading them."""
        if self.tell() + count > min(self.size, MAX_HEADER):
            self.require(count)  # raises the error
        self.position += count

    def skip_strings(self, count: int) -> None:
        """Skip ``count`` strings. Its loop decides how long a large vocabulary takes."""
        if count * 8 > min(self.size, MAX_HEADER) - self.tell():
            self.require(count * 8)  # raises the error: a string has at least 8 bytes
        length_at = U64.unpack_from
        while count:
            self.require(8)
            buffer, position, done = self.buffer, self.position, 0
            # At the end of the window unpack_from raises, so the loop needs no comparison for each string.
            with suppress(struct.error, OverflowError):
                for done in range(count):  # noqa: B007 - used after the loop
                    position += 8 + length_at(buffer, position)[0]
                done = count
            count -= done
            self.position = position
        self.skip(0)


def read(path: str, shown: str | None = None) -> Gguf:
    """Read the header of one GGUF file. ``shown``: the name of the file in problems and in the result, if not its path.

    Raises GgufError if the file is not a GGUF file, is damaged, or is cut short inside its header, and OSError if it
    cannot be read. check_length and check_holes of file.py check the tensors' data.
    """
    # Unbuffered: the reader has its own window, and BufferedReader would copy each of its reads.
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return _parse(_Reader(file, shown or path, size))


def _parse(reader: _Reader) -> Gguf:
    version = _preamble(reader)
    tensor_count, key_count = reader.u64(), reader.u64()
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise reader.damaged(
            f"its header announces {tensor_count} tensors and {key_count} keys, and no model has more than "
            f"{MAX_TENSORS} and {MAX_KEYS}"
        )
    metadata: dict[str, Any] = {}
    while len(metadata) < key_count:
        key = reader.text(MAX_KEY_BYTES, "a key")
        if key in metadata:
            raise reader.damaged(f"the key {key!r} occurs twice")
        metadata[key] = _value(reader, key)
    alignment = _alignment(reader, metadata)
    tensors = _tensors(reader, tensor_count, alignment)
    end = reader.tell()
    return Gguf(
        path=reader.path,
        size=reader.size,
        version=version,
        metadata=metadata,
        tensors=tensors,
        # A part without tensors (the first of some split models) has no padding after its header either.
        data_offset=_padded(end, alignment) if tensors else end,
    )


def _preamble(reader: _Reader) -> int:
    """The version. Raises GgufError for a file of another kind, with what it is."""
    if reader.size == 0:
        raise reader.error("is empty (0 bytes)")
    start = reader.take(min(reader.size, 64))
    reader.position = 0
    if start[:4] != b"GGUF":
        for beginning, what, remedy in NOT_GGUF:
            if start.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(beginning):
                raise reader.error(f"is not a GGUF file but {what}", remedy)
        raise reader.error(f"is not a GGUF file: it starts with {start[:4]!r} instead of b'GGUF'")
    reader.skip(4)
    version = reader.u32()
    if version & 0xFFFF == 0 and version:
        raise reader.error(
            f"is a big-endian GGUF file (its version reads {version:#010x}), for machines such as s390x",
            "Get the little-endian file of this model.",
        )
    if version not in (2, 3):
        raise reader.error(f"has GGUF version {version}, expected is 2 or 3", "Get a current file of this model.")
    return version


def _value(reader: _Reader, key: str) -> Any:
    kind = reader.u32()
    if kind in SCALARS:
        return _numbers(reader, SCALARS[kind], 1)[0]
    if kind == STRING:
        return _string(reader)
    if kind != ARRAY:
        raise reader.damaged(f"the key {key!r} has the unknown value type {kind}")
    kind, count = reader.u32(), reader.u64()
    if kind == STRING:
        reader.skip_strings(count)
        return Array(kind, count)
    if kind not in SCALARS:
        what = "an array of arrays" if kind == ARRAY else f"an array of the unknown value type {kind}"
        raise reader.damaged(f"the key {key!r} is {what}, which GGUF does not allow")
    if count <= KEPT_ITEMS:
        return _numbers(reader, SCALARS[kind], count)
    reader.skip(count * struct.calcsize(SCALARS[kind]))
    return Array(kind, count)


def _numbers(reader: _Reader, code: str, count: int) -> tuple[Any, ...]:
    layout = f"<{count}{code}"
    return struct.unpack(layout, reader.take(struct.calcsize(layout)))


def _string(reader: _Reader) -> str | Array:
    length = reader.u64()
    if length > KEPT_BYTES:
        reader.skip(length)
        return Array(STRING, length)
    # llama.cpp accepts any bytes here, so an invalid one is no reason to refuse a model.
    return reader.take(length).decode(errors="replace")


def _alignment(reader: _Reader, metadata: dict[str, Any]) -> int:
    alignment: Any = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not is_integer(alignment) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 31:
        raise reader.damaged(f"general.alignment is {alignment!r}, expected is a power of 2")
    return int(alignment)


def _padded(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _tensors(reader: _Reader, count: int, alignment: int) -> tuple[Tensor, ...]:
    """The table of tensors, checked as in gguf.cpp: known types, whole rows, no gap, no overlap."""
    tensors: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    while len(tensors) < count:
        tensor = _tensor(reader)
        if tensor.name in names:
            raise reader.damaged(f"the tensor {tensor.name!r} occurs twice")
        if tensor.offset != offset:
            text = f"the tensor {tensor.name!r} starts at {tensor.offset}, and the tensors before it end at {offset}"
            raise reader.damaged(text)
        names.add(tensor.name)
        tensors.append(tensor)
        offset += _padded(tensor.size, alignment)
    return tuple(tensors)


def _tensor(reader: _Reader) -> Tensor:
    name = reader.text(MAX_NAME_BYTES, "a tensor's name")
    dimension_count = reader.u32()
    if dimension_count > MAX_DIMENSIONS:
        text = f"the tensor {name!r} has {dimension_count} dimensions, and at most {MAX_DIMENSIONS} are allowed"
        raise reader.damaged(text)
    dimensions = _numbers(reader, "q", dimension_count)
    kind = reader.u32()
    offset = reader.u64()
    if kind not in TENSOR_TYPES:
        raise reader.error(
            f"has a tensor {name!r} of the unknown type {kind}",
            "The file is damaged, or made for another version of llama.cpp. Get it again, or get another quantization "
            "of this model.",
        )
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = 1
    for dimension in dimensions:
        elements *= dimension
        if dimension < 0 or elements >= 1 << 63:
            raise reader.damaged(f"the tensor {name!r} has the impossible dimensions {dimensions}")
    row = dimensions[0] if dimensions else 1
    if row % block:
        text = f"a row of the tensor {name!r} has {row} elements, expected is a multiple of {block} for {type_name}"
        raise reader.damaged(text)
    return Tensor(name, kind, offset, elements // block * block_bytes, elements)
