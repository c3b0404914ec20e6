# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory in which pieces wait to be hashed, and direct writes."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import buffers, engine, hasher
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.buffers import ALIGN, Writer, page_aligned
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import Source, fetch
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.part_file import Part, content_id
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.pieces import Piece, Pieces
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.source import Upstream
from ansible_collections.gpufleet.llamacpp.tests.unit._fetch.fault_server import FaultServer

SIZE = 4 * ALIGN


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(Source("http://a/"), False)


def take(pieces: Pieces, owner: str, upstream: Upstream) -> Piece:
    with pieces.changed:
        return pieces.take(owner, upstream) or pytest.fail("no piece is left")


def write(piece: Piece, owner: str, path: Path, count: int) -> bool:
    """Receive ``count`` bytes of the piece into its buffer and write them."""
    room = piece.room(owner)
    data = memoryview(bytes(count)) if room is None else room[:count]
    with path.open("r+b") as file:
        writer = Writer(str(path), file.fileno())
        try:
            return piece.write(owner, writer, data)
        finally:
            writer.close()


class TestPieceBuffers:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "part").write_bytes(bytes(8 * SIZE))
        return tmp_path / "part"

    def test_a_hashed_piece_frees_its_buffer(self, upstream: Upstream) -> None:
        pieces = Pieces(8 * SIZE, SIZE, {}, 1)
        first = take(pieces, "one", upstream)
        assert first.buffer is not None and len(first.buffer) == SIZE
        assert take(pieces, "two", upstream).buffer is None
        pieces.hashed(first)
        assert first.buffer is None and take(pieces, "three", upstream).buffer is not None

    def test_there_are_no_more_buffers_than_pieces(self, upstream: Upstream) -> None:
        pieces = Pieces(2 * SIZE, SIZE, {}, 1000)
        assert len(pieces._buffers) == 2

    def test_another_worker_continues_in_the_buffer(self, upstream: Upstream, path: Path) -> None:
        pieces = Pieces(SIZE, SIZE, {}, 1)
        piece = take(pieces, "one", upstream)
        buffer = piece.buffer
        write(piece, "one", path, ALIGN)
        pieces.give_back("one", piece)
        assert take(pieces, "two", upstream) is piece and piece.buffer is buffer
        room = piece.room("two")
        assert room is not None and len(room) == SIZE - ALIGN
        assert piece.room("one") is None

    def test_a_resumed_piece_has_no_buffer(self, upstream: Upstream) -> None:
        """Its first bytes are in the file only."""
        assert take(Pieces(SIZE, SIZE, {0: ALIGN}, 1), "one", upstream).buffer is None

    def test_a_slow_worker_keeps_the_buffer_that_it_reads_into(
        self, upstream: Upstream, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another worker takes the piece over and completes it; until the slow one is back, nobody gets its buffer."""
        pieces = Pieces(2 * SIZE, 2 * SIZE, {}, 1)
        piece = take(pieces, "slow", upstream)
        piece.began -= 3600
        assert take(pieces, "fast", upstream) is piece
        assert piece.buffer is None and not pieces._buffers
        assert not write(piece, "slow", path, ALIGN)
        pieces.give_back("slow", piece)
        assert len(pieces._buffers) == 1

    def test_a_piece_that_another_process_wrote_has_no_buffer(self, upstream: Upstream) -> None:
        pieces = Pieces(SIZE, SIZE, {}, 1)
        piece = take(pieces, "one", upstream)
        pieces.done_elsewhere()
        assert piece.buffer is None and pieces.is_whole(0)

    @pytest.mark.parametrize("hashing", [True, False])
    def test_only_a_busy_hasher_is_waited_for(self, upstream: Upstream, hashing: bool) -> None:
        pieces = Pieces(8 * SIZE, SIZE, {}, 1)
        first = take(pieces, "one", upstream)
        pieces.hashing = hashing

        def wait() -> None:
            with pieces.changed:
                pieces.wait_for_buffer()

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() == hashing
        pieces.hashed(first)
        waiting.join(5)
        assert not waiting.is_alive()


@pytest.mark.parametrize("shared", [True, False])
def test_the_file_counts_if_another_process_writes_to_it(tmp_path: Path, upstream: Upstream, shared: bool) -> None:
    """Otherwise the buffer does, and the file is not read."""
    part = Part(str(tmp_path / "x"), content_id(None, "one"), SIZE, SIZE)
    if shared:
        Path(f"{part.path}.journal.elsewhere.1").touch()
    pieces = Pieces(SIZE, SIZE, {}, 1)
    piece = take(pieces, "one", upstream)
    assert piece.buffer is not None
    piece.buffer[:] = b"b" * SIZE
    os.pwrite(part.handle, b"f" * SIZE, 0)
    piece.at = piece.end
    pieces.finish("one", piece)
    thread = hasher.Hasher(part, pieces)
    thread.run()
    part.close()
    assert thread.digest == digest((b"f" if shared else b"b") * SIZE)


@pytest.fixture(params=[True, False], ids=["direct", "through the page cache"])
def direct(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system supports direct writes."""
    wanted = bool(request.param)
    if wanted and not buffers.supports_direct(str(tmp_path)):
        pytest.skip("the file system of temporary files does not support direct writes")
    monkeypatch.setattr(buffers, "supports_direct", lambda path: wanted)
    return wanted


def test_every_byte_is_written(direct: bool, tmp_path: Path) -> None:
    """Aligned bytes, the end of the file, and bytes from memory that is not aligned."""
    path = tmp_path / "file"
    content = os.urandom(3 * ALIGN + 100)
    memory = page_aligned(4 * ALIGN)
    with path.open("w+b") as file:
        writer = Writer(str(path), file.fileno())
        at = 0
        while at < len(content):
            skip = 8 if at == ALIGN else 0
            part = content[at : at + ALIGN] if at <= ALIGN else content[at:]
            memory[skip : skip + len(part)] = part
            at += writer.write(memory[skip : skip + len(part)], at)
        writer.close()
    assert path.read_bytes() == content


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [1, ALIGN, 5_000_000, (1 << 20) * 40 + 17])
def test_a_fetch_with_and_without_direct_writes(direct: bool, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    with FaultServer(content) as server:
        done = fetch([Source(server.url)], str(tmp_path / "x"), size=None, sha256=digest(content))
    assert done.size == size and (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize("memory", [0, 2, 8])
def test_a_fetch_with_little_memory(direct: bool, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hasher reads from the file what is not in memory."""
    monkeypatch.setattr(engine, "MEMORY", memory << 20)
    content = os.urandom(40 << 20)
    with FaultServer(content) as server:
        fetch([Source(server.url)], str(tmp_path / "x"), size=None, sha256=digest(content), chunk=2 << 20)
    assert (tmp_path / "x").read_bytes() == content


def test_slow_bytes_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short reads fill one buffer."""
    content = os.urandom(12 << 20)
    read: list[int] = []
    preadv = os.preadv
    monkeypatch.setattr(hasher.os, "preadv", lambda *all_: read.append(preadv(*all_)) or read[-1])
    with FaultServer(content) as server:
        path = str(tmp_path / "x")
        fetch([Source(server.url)], path, size=None, sha256=digest(content), max_rate=16e6, connections=3)
    assert read == []
