# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches that are killed or run twice at once, and disks that are damaged or full."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import journal as journal_module
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import part_file
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.buffers import Writer
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import Fetched, FetchError, Source, fetch
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.pieces import Pieces
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.source import Upstream
from ansible_collections.gpufleet.llamacpp.tests.unit._fetch.fault_server import (
    FaultServer,
    Reply,
    Request,
    data_only,
)

CHUNK = 64 << 10
CONTENT = random.Random(2).randbytes(20 * CHUNK - 99)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CONNECTIONS = 4

CHILD = """
import json, sys
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import Source, fetch
url, destination, options = sys.argv[1:]
fetched = fetch([Source(url)], destination, **json.loads(options))
print(json.dumps(fetched.__dict__))
"""


def start(url: str, destination: Path, **options: Any) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(destination), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def pull(folder: Path, server: FaultServer, **options: Any) -> Fetched:
    options = {"size": None, "sha256": SHA256, "chunk": CHUNK, "connections": 1, **options}
    return fetch([Source(server.url)], str(folder / "file"), **options)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(CONTENT) as running:
        yield running


def lost_from(start_: int) -> Any:
    """The server has lost the file from this byte on: a running fetch fails for good."""
    return data_only(lambda request, reply: Reply(404, {}, b"") if request.start >= start_ else None)


def interrupted(folder: Path, server: FaultServer, chunks: int = 12) -> Path:
    """The part that a failed fetch left after ``chunks`` chunks."""
    server.faults.add(lost_from(chunks * CHUNK))
    with pytest.raises(FetchError, match="are kept for the next try"):
        pull(folder, server)
    server.faults.waiting.clear()
    server.requests.clear()
    (part,) = folder.glob(".file.*.part")
    return part


def complete(folder: Path) -> bool:
    """The file is there, and nothing beside it."""
    return os.listdir(folder) == ["file"] and (folder / "file").read_bytes() == CONTENT


def test_a_fetch_is_resumed(tmp_path: Path, server: FaultServer) -> None:
    part = interrupted(tmp_path, server)
    assert part.name == f".file.{SHA256[:16]}.part"
    fetched = pull(tmp_path, server)
    assert complete(tmp_path)
    assert fetched.bytes_resumed == 12 * CHUNK
    assert fetched.bytes_fetched == len(CONTENT) - 12 * CHUNK
    assert {one.start // CHUNK for one in server.data_requests} == set(range(12, 20))


@pytest.mark.parametrize("known", [True, False])
def test_killed_again_and_again(tmp_path: Path, known: bool) -> None:
    """Each kill -9 costs at most ``connections`` chunks, and the file is right in the end."""
    dice = random.Random(3)
    content = dice.randbytes(64 << 20)
    chunk = 1 << 20
    options = {"size": None, "sha256": None, "chunk": chunk, "connections": CONNECTIONS}
    if known:
        options["sha256"] = hashlib.sha256(content).hexdigest()
    kills = 0
    with FaultServer(content) as server:
        while True:
            child = start(server.url, tmp_path / "file", **options)
            goal = server.sent + dice.randrange(2 << 20, 12 << 20)
            while child.poll() is None and server.sent < goal:
                time.sleep(0.001)
            if child.poll() is not None:
                break
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            kills += 1
        out, err = child.communicate()
        assert child.returncode == 0, err.decode()
        fetched = json.loads(out)
        again = server.sent - len(content)
    assert kills >= 4
    assert (tmp_path / "file").read_bytes() == content
    assert fetched["sha256"] == hashlib.sha256(content).hexdigest()
    assert fetched["bytes_resumed"] > 0
    assert again <= kills * CONNECTIONS * chunk + kills + 1  # and the first byte, each time
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("round_", range(3))
def test_three_processes_at_once(tmp_path: Path, round_: int) -> None:
    content = random.Random(round_).randbytes(16 << 20)
    digest = hashlib.sha256(content).hexdigest()
    with FaultServer(content) as server:
        options = {"size": None, "sha256": digest, "chunk": 256 << 10, "connections": CONNECTIONS}
        children = [start(server.url, tmp_path / "file", **options) for _child in range(3)]
        for child in children:
            out, err = child.communicate()
            assert child.returncode == 0, err.decode()
            assert json.loads(out)["sha256"] == digest
    assert (tmp_path / "file").read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_another_process_delivers_first(tmp_path: Path, server: FaultServer) -> None:
    """We use its file: we fetch no more, and verify it ourselves."""

    def other(request: Request, reply: Reply) -> None:
        if request.start == 5 * CHUNK:
            part = next(tmp_path.glob(".file.*.part"))
            with part.open("r+b") as file:
                file.write(CONTENT)
            part.rename(tmp_path / "file")

    server.faults.add(data_only(other))
    fetched = pull(tmp_path, server)
    assert complete(tmp_path)
    assert fetched.sha256 == SHA256
    assert fetched.bytes_fetched <= 6 * CHUNK


def test_another_process_removes_the_part(tmp_path: Path, server: FaultServer) -> None:
    removed: list[Path] = []

    def other(request: Request, reply: Reply) -> None:
        if request.start == 5 * CHUNK and not removed:
            for path in tmp_path.glob(".file.*"):
                path.unlink()
                removed.append(path)

    server.faults.add(data_only(other))
    pull(tmp_path, server)
    assert len(removed) == 2
    assert complete(tmp_path)


def test_another_process_replaces_the_part_at_the_last_moment(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part is not complete, and must not become the file."""
    link = os.link
    count = []

    def late(source: str, target: str, **options: Any) -> None:
        if not count:
            count.append(1)
            os.unlink(source)
            Path(source).write_bytes(b"half")
        link(source, target, **options)

    rename = os.rename

    def seen(source: str, target: str) -> None:
        assert Path(source).read_bytes() == CONTENT
        rename(source, target)

    monkeypatch.setattr(os, "link", late)
    monkeypatch.setattr(os, "rename", seen)
    pull(tmp_path, server)
    assert complete(tmp_path)
    assert len(server.data_requests) > 20


def test_a_chunk_is_durable_before_the_journal_says_so(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is durable before more than the limit is fetched, and the whole file before it gets its name."""
    events: list[tuple[str, int]] = []
    safe: dict[int, int] = {}
    written = [0]
    lock = threading.Lock()

    def which(handle: int) -> str:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        return "journal" if "journal" in name else "part" if "part" in name else "folder"

    def watch(name: str, before: Callable[..., None] | None, after: Callable[..., None] | None = None) -> None:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            if before is not None:
                before(*args)
            done = real(*args, **options)
            if after is not None:
                after(*args)
            return done

        monkeypatch.setattr(os, name, call)

    def wrote(handle: int, data: memoryview, at: int) -> None:
        with lock:
            written[0] = max(written[0], at + len(data))  # one connection: in order

    def sync(handle: int) -> None:
        with lock:
            safe[threading.get_ident()] = written[0]
            events.append((f"sync {which(handle)}", 0))

    def record(handle: int, data: bytes) -> None:
        if which(handle) == "journal":
            for found in re.finditer(rb" have (\d+) (\d+)\n", data):
                recorded = int(found[1]) * CHUNK + int(found[2])
                events.append(("record", recorded))
                assert recorded <= safe[threading.get_ident()]

    watch("pwrite", None, wrote)
    watch("write", record)
    watch("fdatasync", sync)
    watch("fsync", sync)
    watch("rename", lambda *dummy: events.append(("rename", 0)))
    pull(tmp_path, server)
    names = [name for name, dummy in events]
    assert names.count("record") >= 10
    assert all(names[number + 1] in ("record", "sync journal") for number, one in enumerate(names) if one == "record")
    at = names.index("rename")
    assert names[at - 1 : at + 2] == ["sync part", "rename", "sync folder"]


def test_a_new_part_has_no_journal(tmp_path: Path) -> None:
    """A journal beside it is one of an earlier part, which may have had the same inode."""
    stale = tmp_path / "x.part.journal.elsewhere.1"
    stale.touch()
    handle, created = part_file.prepare(str(tmp_path / "x.part"), 10)
    os.close(handle)
    assert created and not stale.exists()


def test_a_worker_that_lost_a_piece_does_not_write(tmp_path: Path) -> None:
    pieces = Pieces(10, 10, {})
    upstream = Upstream(Source("http://a/"), False)
    with pieces.changed, (tmp_path / "file").open("w+b") as file:
        piece, writer = pieces.take("first", upstream), Writer(file.name, file.fileno())
        assert piece is not None and piece.write("first", writer, memoryview(b"12345"))
        piece.owner = "second"
        assert not piece.write("first", writer, memoryview(b"late"))
        assert piece.write("second", writer, memoryview(b"67890"))
        writer.close()
        assert file.read() == b"1234567890"


def test_another_process_delivers_at_the_same_moment(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def race(source: str, target: str, **options: Any) -> None:
        link(source, target, **options)
        os.rename(target, tmp_path / "file")  # the other process delivers, and removes the other names
        os.unlink(source)

    monkeypatch.setattr(os, "link", race)
    assert pull(tmp_path, server).bytes_fetched == len(CONTENT)
    assert complete(tmp_path)


def test_a_delivery_of_another_host_is_not_touched(tmp_path: Path, server: FaultServer) -> None:
    part = interrupted(tmp_path, server)
    done = Path(f"{part}.done.elsewhere.1")
    os.link(part, done)
    server.faults.add(lost_from(13 * CHUNK))
    with pytest.raises(FetchError):
        pull(tmp_path, server)
    assert done.exists()


def test_without_hard_links(tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*dummy: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    pull(tmp_path, server)
    assert complete(tmp_path)


@pytest.mark.parametrize("only_name", [True, False])
def test_an_interrupted_delivery(tmp_path: Path, server: FaultServer, only_name: bool) -> None:
    part = interrupted(tmp_path, server)
    done = f"{part}.done.{journal_module.host_name()}.999999999"
    os.link(part, done)
    if only_name:
        part.unlink()
    assert pull(tmp_path, server).bytes_resumed == 12 * CHUNK
    assert complete(tmp_path)


def test_files_of_another_host_stay_until_the_end(tmp_path: Path, server: FaultServer) -> None:
    part = interrupted(tmp_path, server)
    (mine,) = tmp_path.glob("*.journal.*")
    theirs = Path(f"{part}.journal.elsewhere.1")
    mine.rename(theirs)
    server.faults.add(lost_from(14 * CHUNK))
    with pytest.raises(FetchError):
        pull(tmp_path, server)
    assert theirs.exists()
    server.faults.waiting.clear()
    assert pull(tmp_path, server).bytes_resumed == 14 * CHUNK
    assert complete(tmp_path)


class TestDamage:
    @pytest.mark.parametrize("seed", range(25))
    def test_a_byte_of_a_journal(self, tmp_path: Path, server: FaultServer, seed: int) -> None:
        interrupted(tmp_path, server)
        (path,) = tmp_path.glob("*.journal.*")
        data = bytearray(path.read_bytes())
        data[random.Random(seed).randrange(len(data))] ^= 1 << (seed % 8)
        path.write_bytes(data)
        fetched = pull(tmp_path, server)
        assert complete(tmp_path)
        assert fetched.bytes_fetched <= len(CONTENT)

    @pytest.mark.parametrize("keep", [0, 10, 200, 350, 700])
    def test_a_truncated_journal(self, tmp_path: Path, server: FaultServer, keep: int) -> None:
        interrupted(tmp_path, server)
        (path,) = tmp_path.glob("*.journal.*")
        path.write_bytes(path.read_bytes()[:keep])
        pull(tmp_path, server)
        assert complete(tmp_path)

    def test_a_line_with_a_wrong_checksum_is_ignored(self, tmp_path: Path, server: FaultServer) -> None:
        """Chunk 3 becomes chunk 13, which is missing: without the checksum the engine would not fetch it."""
        interrupted(tmp_path, server)
        (path,) = tmp_path.glob("*.journal.*")
        text = path.read_text()
        assert f" have 3 {CHUNK}\n" in text
        path.write_text(re.sub(r" have 3 (\d+)\n", r" have 13 \1\n", text))
        fetched = pull(tmp_path, server)
        assert complete(tmp_path)
        assert {one.start // CHUNK for one in server.data_requests} == {3, *range(12, 20)}
        assert fetched.bytes_resumed == 11 * CHUNK

    def test_another_file_with_the_name_of_the_part(self, tmp_path: Path, server: FaultServer) -> None:
        part = interrupted(tmp_path, server)
        blank = tmp_path / "blank"
        blank.write_bytes(bytes(len(CONTENT)))
        blank.rename(part)
        assert pull(tmp_path, server).bytes_resumed == 0
        assert complete(tmp_path)

    def test_a_journal_without_its_part(self, tmp_path: Path, server: FaultServer) -> None:
        interrupted(tmp_path, server).unlink()
        assert pull(tmp_path, server).bytes_resumed == 0
        assert complete(tmp_path)

    def test_a_wrong_byte_costs_its_chunk(self, tmp_path: Path, server: FaultServer) -> None:
        part = interrupted(tmp_path, server)
        (path,) = tmp_path.glob("*.journal.*")
        assert " prefix 2 " in path.read_text()
        with part.open("r+b") as file:
            file.seek(2 * CHUNK + 5)
            file.write(bytes([CONTENT[2 * CHUNK + 5] ^ 1]))
        fetched = pull(tmp_path, server)
        assert complete(tmp_path)
        assert {one.start // CHUNK for one in server.data_requests} == {2, *range(12, 20)}
        assert fetched.bytes_fetched == len(CONTENT) - 11 * CHUNK

    def test_a_wrong_byte_without_a_recorded_sha256_costs_the_file(self, tmp_path: Path, server: FaultServer) -> None:
        part = interrupted(tmp_path, server)
        (path,) = tmp_path.glob("*.journal.*")
        path.write_text("".join(one for one in path.read_text().splitlines(True) if " prefix " not in one))
        with part.open("r+b") as file:
            file.seek(2 * CHUNK + 5)
            file.write(bytes([CONTENT[2 * CHUNK + 5] ^ 1]))
        fetched = pull(tmp_path, server)
        assert complete(tmp_path)
        assert fetched.bytes_fetched == len(CONTENT) - 12 * CHUNK + len(CONTENT)

    def test_a_wrong_sha256_of_a_right_chunk(self, tmp_path: Path, server: FaultServer) -> None:
        interrupted(tmp_path, server)
        (path,) = tmp_path.glob("*.journal.*")
        text = re.sub(r"(?m)^.* prefix 2 .*\n", journal_module.line(f"prefix 2 {'0' * 64}"), path.read_text())
        path.write_text(text)
        fetched = pull(tmp_path, server)
        assert complete(tmp_path)
        assert fetched.bytes_fetched == len(CONTENT) - 11 * CHUNK

    def test_a_part_that_is_a_link(self, tmp_path: Path, server: FaultServer) -> None:
        part = interrupted(tmp_path, server)
        other = tmp_path / "other"
        other.write_bytes(b"other")
        part.unlink()
        part.symlink_to(other)
        pull(tmp_path, server)
        assert other.read_bytes() == b"other"
        assert (tmp_path / "file").read_bytes() == CONTENT


class TestFullDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 512 KiB, smaller than the file."""
        folder = tmp_path / "small"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("only root can mount a small file system")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_is_reported_before_the_first_byte(self, small: Path, server: FaultServer) -> None:
        with pytest.raises(FetchError, match="No space left on device; 524288 bytes are free"):
            pull(small, server)
        assert os.listdir(small) == []
        assert server.data_requests == []

    def test_during_the_fetch_keeps_its_bytes(
        self, small: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file system cannot reserve space."""
        monkeypatch.setattr(part_file, "allocate", os.ftruncate)
        with pytest.raises(FetchError, match="No space left on device"):
            pull(small, server, connections=CONNECTIONS)
        assert len(server.data_requests) < 20
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        fetched = pull(small, server)
        assert complete(small)
        assert fetched.bytes_resumed > 0

    def test_a_limit_of_the_process(self, tmp_path: Path, server: FaultServer) -> None:
        limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n" + CHILD
        options = {"size": None, "sha256": SHA256, "chunk": CHUNK}
        done = subprocess.run(
            [sys.executable, "-c", limited, server.url, str(tmp_path / "file"), json.dumps(options)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert b"FetchError: cannot write" in done.stderr and b"File too large" in done.stderr
        assert os.listdir(tmp_path) == []

    def test_a_quota(self, tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(handle: int, size: int) -> None:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        monkeypatch.setattr(part_file, "allocate", refuse)
        with pytest.raises(FetchError, match=f"{os.strerror(errno.EDQUOT)}; .* bytes are free"):
            pull(tmp_path, server)
        assert os.listdir(tmp_path) == []

    def test_a_folder_without_write_permission(self, tmp_path: Path, server: FaultServer) -> None:
        if os.geteuid() == 0:
            folder = Path("/proc")
        else:
            tmp_path.chmod(0o500)
            folder = tmp_path
        with pytest.raises(FetchError, match="cannot write"):
            pull(folder, server)


def test_a_part_of_other_content_is_removed(tmp_path: Path, server: FaultServer) -> None:
    interrupted(tmp_path, server)
    for path in tmp_path.glob("*.journal.*"):  # of a process that has ended
        path.rename(str(path).rpartition(".")[0] + ".999999999")
    changed = CONTENT[::-1]
    server.content, server.etag = changed, '"two"'
    pull(tmp_path, server, sha256=hashlib.sha256(changed).hexdigest())
    assert os.listdir(tmp_path) == ["file"]


def test_a_part_of_other_content_in_use_stays(tmp_path: Path, server: FaultServer) -> None:
    part = interrupted(tmp_path, server)
    (path,) = tmp_path.glob("*.journal.*")
    path.rename(f"{part}.journal.elsewhere.1")
    changed = CONTENT[::-1]
    server.content, server.etag = changed, '"two"'
    pull(tmp_path, server, sha256=hashlib.sha256(changed).hexdigest())
    assert part.exists() and len(os.listdir(tmp_path)) == 3
