# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of a GGUF file's header.

Private to gpufleet.llamacpp; may change at any time.

The reader walks over the vocabulary without building an object for each token, so a header takes tens of milliseconds
and a few MiB. It reads and never maps the file: a mapped file that someone cuts short kills the reader with SIGBUS.
Layout and limits are those of llama.cpp's gguf.cpp, whose loader refuses what is refused here.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from .._result import OperatorError, Problem
from .types import TENSOR_TYPES, is_integer

# llama.cpp allows 2^30 bytes in a string and 2^30 items in an array. A real header has a few MiB; these bounds
# are far above any model and keep the memory and the seconds that a hostile file can cost small.
MAX_HEADER = 128 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_KEY_BYTES = (1 << 16) - 1
# Numbers are kept of arrays that have one item a layer, and texts as long as a chat template; the rest is only counted.
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
# What failed downloads leave in place of a model: first bytes -> what the file is, and what to do.
IMPOSTORS: tuple[tuple[bytes, str, str], ...] = (
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
    """The file is no usable GGUF file. ``text`` begins with the path that is shown to the operator."""

    def __init__(self, text: str, remedy: str = AGAIN, path: str | None = None) -> None:
        super().__init__(Problem("", text, remedy, path))


class Array(NamedTuple):
    """An array of the metadata, or a very long text (as its bytes), that was walked over and not kept."""

    type: int
    items: int


class Tensor(NamedTuple):
    """One tensor: ``offset`` in bytes from the start of the data, ``size`` in bytes without padding."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int
    size: int
    elements: int


@dataclass(frozen=True)
class Gguf:
    """What the header of one GGUF file says; all sizes in bytes."""

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
    """A window on the file that moves forward; every read is bounded by the file's size and MAX_HEADER."""

    def __init__(self, file: BinaryIO, path: str, size: int) -> None:
        self.file = file
        self.path = path
        self.size = size
        self.buffer = b""
        self.start = 0  # of the buffer, in the file
        self.position = 0  # in the buffer

    def tell(self) -> int:
        return self.start + self.position

    def wants(self, count: int) -> None:
        """Make ``count`` bytes available at the position."""
        if self.position + count <= len(self.buffer):
            return
        offset = self.tell()
        if offset + count > self.size:
            raise GgufError(
                f"{self.path} is cut short inside its header: it has {self.size} bytes, and the header goes on to byte "
                f"{offset + count} at least",
                INTERRUPTED,
            )
        if offset + count > MAX_HEADER:
            raise GgufError(f"{self.path} has a header of more than {MAX_HEADER >> 20} MiB, and no model has one")
        if self.position > len(self.buffer):
            self.file.seek(offset)
            rest = b""
        else:
            rest = self.buffer[self.position :]
        self.buffer = rest + self.file.read(max(count - len(rest), READ_BYTES))
        self.start = offset
        self.position = 0
        if len(self.buffer) < count:
            raise GgufError(
                f"{self.path} became shorter while it was being read", "Run this again when nothing writes to it."
            )

    def take(self, count: int) -> bytes:
        self.wants(count)
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
            raise GgufError(f"{self.path} is damaged: {what} has {length} bytes, and at most {limit} are allowed")
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise GgufError(f"{self.path} is damaged: {what} is not valid UTF-8 ({data[:40]!r})") from None

    def skip(self, count: int) -> None:
        """Pass over bytes that must be there, without reading them."""
        if self.tell() + count > min(self.size, MAX_HEADER):
            self.wants(count)  # says what is wrong
        self.position += count

    def skip_strings(self, count: int) -> None:
        """Pass over ``count`` strings; the loop that decides how long a large vocabulary takes."""
        if count * 8 > min(self.size, MAX_HEADER) - self.tell():
            self.wants(count * 8)  # says what is wrong: each string takes 8 bytes at least
        length_at = U64.unpack_from
        while count:
            self.wants(8)
            buffer, position, done = self.buffer, self.position, 0
            # No comparison a string: the window's end announces itself.
            with suppress(struct.error, OverflowError):
                for done in range(count):  # noqa: B007 - how far it came is read behind the loop
                    position += 8 + length_at(buffer, position)[0]
                done = count
            count -= done
            self.position = position
        self.skip(0)


def read(path: str, shown: str | None = None) -> Gguf:
    """Read the header of one GGUF file. ``shown``: what problems and the result call the file (default: its path).

    Raises GgufError where the file is no GGUF file, is damaged, or is cut short inside its header, and OSError where it
    cannot be read. gguf.check_length and gguf.check_holes say whether the tensors' data is there.
    """
    # Unbuffered: the reader has its own window, and BufferedReader would copy each of its reads once more.
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return _parse(_Reader(file, shown or path, size))


def _parse(reader: _Reader) -> Gguf:
    version = _preamble(reader)
    tensor_count, key_count = reader.u64(), reader.u64()
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise GgufError(
            f"{reader.path} is damaged: its header announces {tensor_count} tensors and {key_count} keys, and no model "
            f"has more than {MAX_TENSORS} and {MAX_KEYS}"
        )
    metadata: dict[str, Any] = {}
    while len(metadata) < key_count:
        key = reader.text(MAX_KEY_BYTES, "a key")
        if key in metadata:
            raise GgufError(f"{reader.path} is damaged: the key {key!r} is there twice")
        metadata[key] = _value(reader, key)
    alignment = _alignment(reader.path, metadata)
    tensors = _tensors(reader, tensor_count, alignment)
    end = reader.tell()
    return Gguf(
        path=reader.path,
        size=reader.size,
        version=version,
        metadata=metadata,
        tensors=tensors,
        # A part without tensors (the first of some split sets) has no padding behind its header either.
        data_offset=_padded(end, alignment) if tensors else end,
    )


def _preamble(reader: _Reader) -> int:
    """The magic and the version. Files that are no GGUF at all are recognized here."""
    if reader.size == 0:
        raise GgufError(f"{reader.path} is empty (0 bytes)")
    start = reader.take(min(reader.size, 64))
    reader.position = 0
    if start[:4] != b"GGUF":
        for beginning, what, remedy in IMPOSTORS:
            if start.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(beginning):
                raise GgufError(f"{reader.path} is not a GGUF file but {what}", remedy)
        raise GgufError(f"{reader.path} is not a GGUF file: it begins with {start[:4]!r} and not with b'GGUF'")
    reader.skip(4)
    version = reader.u32()
    if version & 0xFFFF == 0 and version:
        raise GgufError(
            f"{reader.path} is a big-endian GGUF file (its version reads {version:#010x}), for machines such as s390x",
            "Get the little-endian file of this model.",
        )
    if version not in (2, 3):
        raise GgufError(
            f"{reader.path} has GGUF version {version}, and 2 and 3 are known", "Get a current file of this model."
        )
    return version


def _value(reader: _Reader, key: str) -> Any:
    kind = reader.u32()
    if kind in SCALARS:
        return _numbers(reader, SCALARS[kind], 1)[0]
    if kind == STRING:
        return _string(reader)
    if kind != ARRAY:
        raise GgufError(f"{reader.path} is damaged: the key {key!r} has the unknown value type {kind}")
    kind, count = reader.u32(), reader.u64()
    if kind == STRING:
        reader.skip_strings(count)
        return Array(kind, count)
    if kind not in SCALARS:
        what = "an array of arrays" if kind == ARRAY else f"an array of the unknown value type {kind}"
        raise GgufError(f"{reader.path} is damaged: the key {key!r} is {what}, which GGUF does not allow")
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
    # llama.cpp takes any bytes here, so a stray one is no reason to refuse a model.
    return reader.take(length).decode(errors="replace")


def _alignment(path: str, metadata: dict[str, Any]) -> int:
    alignment: Any = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not is_integer(alignment) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 31:
        raise GgufError(f"{path} is damaged: general.alignment is {alignment!r}, and a power of 2 is expected")
    return int(alignment)


def _padded(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _tensors(reader: _Reader, count: int, alignment: int) -> tuple[Tensor, ...]:
    """The table of tensors, checked as gguf.cpp does: known types, whole rows, no gap, no overlap."""
    tensors: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    while len(tensors) < count:
        tensor = _tensor(reader)
        if tensor.name in names:
            raise GgufError(f"{reader.path} is damaged: the tensor {tensor.name!r} is there twice")
        if tensor.offset != offset:
            raise GgufError(
                f"{reader.path} is damaged: the tensor {tensor.name!r} is said to begin at {tensor.offset}, and the "
                f"tensors before it end at {offset}"
            )
        names.add(tensor.name)
        tensors.append(tensor)
        offset += _padded(tensor.size, alignment)
    return tuple(tensors)


def _tensor(reader: _Reader) -> Tensor:
    name = reader.text(MAX_NAME_BYTES, "a tensor's name")
    dimension_count = reader.u32()
    if dimension_count > MAX_DIMENSIONS:
        raise GgufError(
            f"{reader.path} is damaged: the tensor {name!r} has {dimension_count} dimensions; at most "
            f"{MAX_DIMENSIONS} are allowed"
        )
    dimensions = _numbers(reader, "q", dimension_count)
    kind = reader.u32()
    offset = reader.u64()
    if kind not in TENSOR_TYPES:
        raise GgufError(
            f"{reader.path}: the tensor {name!r} has the type {kind}, which is not known here",
            "The file is damaged, or made for another llama.cpp. Get it again, or another quantization of this model.",
        )
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = 1
    for dimension in dimensions:
        elements *= dimension
        if dimension < 0 or elements >= 1 << 63:
            raise GgufError(f"{reader.path} is damaged: the tensor {name!r} has impossible dimensions {dimensions}")
    row = dimensions[0] if dimensions else 1
    if row % block:
        raise GgufError(
            f"{reader.path} is damaged: a row of the tensor {name!r} has {row} elements, no multiple of the {block} "
            f"that {type_name} packs together"
        )
    return Tensor(name, dimensions, kind, offset, elements // block * block_bytes, elements)
