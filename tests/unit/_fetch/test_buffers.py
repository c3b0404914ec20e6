# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stays in memory until it is hashed, and writing past the page cache."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import direct, hasher
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.buffers import Blocks, Filling, page_aligned
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.direct import ALIGN, Writer
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import MEMORY, Source, block_of, fetch
from ansible_collections.gpufleet.llamacpp.tests.unit._fetch.fault_server import FaultServer

SIZE = 4 * ALIGN


def filled(blocks: Blocks, at: int, byte: bytes) -> None:
    block = blocks.take(at)
    block[:] = byte * SIZE
    blocks.keep(block, at, block)


def test_what_is_kept_is_had_once() -> None:
    blocks = Blocks(SIZE, 2)
    filled(blocks, 0, b"a")
    block, data = blocks.pop(0) or pytest.fail("it is not held")
    assert bytes(data) == b"a" * SIZE
    assert blocks.pop(0) is None
    blocks.give(block)
    assert blocks.take(0) is block


def test_without_room_what_would_be_hashed_last_goes() -> None:
    blocks = Blocks(SIZE, 2)
    filled(blocks, SIZE, b"b")
    filled(blocks, 0, b"a")
    filled(blocks, 2 * SIZE, b"c")
    assert blocks.pop(SIZE) is None
    assert blocks.pop(0) and blocks.pop(2 * SIZE)


def test_without_room_the_hashing_is_waited_for() -> None:
    blocks = Blocks(SIZE, 1)
    filled(blocks, 0, b"a")
    blocks.hashing(True)
    taken: list[memoryview] = []
    waiting = threading.Thread(target=lambda: taken.append(blocks.take(0)), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert not taken, "a block was taken away that was about to be hashed"
    block, dummy = blocks.pop(0) or pytest.fail("it is not held")
    blocks.give(block)
    waiting.join(5)
    assert taken == [block]


def test_nobody_waits_for_a_hashing_that_waits_for_bytes() -> None:
    blocks = Blocks(SIZE, 1)
    filled(blocks, SIZE, b"b")
    blocks.hashing(True)
    taken: list[memoryview] = []
    waiting = threading.Thread(target=lambda: taken.append(blocks.take(0)), daemon=True)
    waiting.start()
    blocks.hashing(False)
    waiting.join(5)
    assert len(taken) == 1


def test_who_brings_what_is_hashed_first_gets_the_next_block() -> None:
    blocks = Blocks(SIZE, 1)
    blocks.hashing(True)
    only = blocks.take(0)
    order: list[int] = []

    def take(at: int) -> None:
        block = blocks.take(at)
        order.append(at)
        blocks.give(block)

    waiting = [threading.Thread(target=take, args=(at,), daemon=True) for at in (2 * SIZE, 3 * SIZE, SIZE)]
    for thread in waiting:
        thread.start()
        time.sleep(0.05)
    blocks.give(only)
    for thread in waiting:
        thread.join(5)
    assert order == [SIZE, 2 * SIZE, 3 * SIZE]


def test_all_who_wait_get_a_block_when_the_hashing_waits_for_bytes() -> None:
    """Each takes what would be hashed last, one after the other: a slow connection does not hold up the others."""
    blocks = Blocks(SIZE, 8)
    for number in range(8):
        filled(blocks, (10 + number) * SIZE, b"a")
    blocks.hashing(True)
    waiting = [threading.Thread(target=blocks.take, args=(at * SIZE,), daemon=True) for at in range(8)]
    for thread in waiting:
        thread.start()
    blocks.hashing(False)
    for thread in waiting:
        thread.join(5)
    assert not any(thread.is_alive() for thread in waiting)


def test_the_next_bytes_that_are_held_are_known() -> None:
    blocks = Blocks(SIZE, 2)
    filled(blocks, SIZE, b"a")
    filled(blocks, 3 * SIZE, b"b")
    assert [blocks.next(at) for at in (0, SIZE, 3 * SIZE)] == [SIZE, 3 * SIZE, None]


def test_a_few_bytes_are_not_worth_a_block() -> None:
    blocks = Blocks(SIZE, 1)
    block = blocks.take(0)
    blocks.keep(block, 0, block[: SIZE // 4])
    assert blocks.pop(0) is None and blocks.take(0) is block


def test_what_is_hashed_is_forgotten() -> None:
    blocks = Blocks(SIZE, 3)
    filled(blocks, 0, b"a")
    filled(blocks, 5 * SIZE, b"b")
    blocks.forget(SIZE)
    assert blocks.pop(0) is None and blocks.pop(5 * SIZE)


def test_short_reads_fill_one_block() -> None:
    blocks = Blocks(SIZE, 2)
    filling = Filling(blocks)
    for number in range(4):
        room = filling.room(number * ALIGN)
        assert len(room) == SIZE - number * ALIGN
        room[:ALIGN] = bytes([number]) * ALIGN
        filling.add(ALIGN)
    block, data = blocks.pop(0) or pytest.fail("a full block is left to the hashing")
    assert bytes(data) == b"".join(bytes([number]) * ALIGN for number in range(4))
    assert len(filling.room(SIZE)) == SIZE


def test_what_does_not_follow_begins_another_block() -> None:
    blocks = Blocks(SIZE, 2)
    filling = Filling(blocks)
    filling.room(0)[:2] = b"ab"
    filling.add(SIZE // 2)
    filling.room(7 * SIZE)
    filling.drop()
    block, data = blocks.pop(0) or pytest.fail("what came is kept")
    assert len(data) == SIZE // 2 and bytes(data[:2]) == b"ab"
    assert blocks.pop(7 * SIZE) is None
    filling.end()
    blocks.give(block)
    for at in (0, SIZE):  # both are free again, and nobody waits
        blocks.take(at)


@pytest.mark.parametrize(("connections", "block"), [(1, 4 << 20), (8, 4 << 20), (16, 2 << 20), (64, 512 << 10)])
def test_blocks_are_smaller_where_more_are_filled_at_once(connections: int, block: int) -> None:
    assert block_of(connections) == block
    assert MEMORY // block >= 4 * connections


def test_what_comes_slowly_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that came in many short reads are hashed from memory as well."""
    content = os.urandom(12 << 20)
    read: list[int] = []
    real = os.preadv
    monkeypatch.setattr(hasher.os, "preadv", lambda *all_: read.append(real(*all_)) or read[-1])
    with FaultServer(content) as server:
        fetch(
            [Source(server.url)],
            str(tmp_path / "x"),
            size=None,
            sha256=hashlib.sha256(content).hexdigest(),
            max_rate=16e6,
            connections=3,
        )
    assert read == []


@pytest.fixture(params=[True, False], ids=["direct", "through the page cache"])
def good(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system is good at direct writes."""
    wanted = bool(request.param)
    if wanted and not direct.is_good_at(str(tmp_path)):
        pytest.skip("the file system of temporary files is not good at direct writes")
    monkeypatch.setattr(direct, "is_good_at", lambda path: wanted)
    return wanted


def test_every_byte_is_written(good: bool, tmp_path: Path) -> None:
    """Aligned ones, the end of the file, and what lies across."""
    path = tmp_path / "file"
    content = os.urandom(3 * ALIGN + 100)
    memory = page_aligned(4 * ALIGN)
    with path.open("w+b") as file:
        writer = Writer(str(path), file.fileno())
        at = 0
        while at < len(content):
            # Once from memory that is not aligned.
            skip = 8 if at == ALIGN else 0
            part = content[at : at + ALIGN] if at <= ALIGN else content[at:]
            memory[skip : skip + len(part)] = part
            at += writer.write(memory[skip : skip + len(part)], at, skip == 0)
        writer.close()
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", [1, ALIGN, 5_000_000, (1 << 20) * 40 + 17])
def test_a_fetch_either_way(good: bool, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    with FaultServer(content) as server:
        done = fetch([Source(server.url)], str(tmp_path / "x"), size=None, sha256=hashlib.sha256(content).hexdigest())
    assert done.size == size and (tmp_path / "x").read_bytes() == content


def test_less_memory_than_what_comes(good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not stay in memory is read from the file."""
    from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import engine

    monkeypatch.setattr(engine, "MEMORY", 2 << 20)
    content = os.urandom(40 << 20)
    with FaultServer(content) as server:
        fetch([Source(server.url)], str(tmp_path / "x"), size=None, sha256=hashlib.sha256(content).hexdigest())
    assert (tmp_path / "x").read_bytes() == content
