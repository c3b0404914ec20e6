# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import files


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_atomic(str(path), b"one", 0o600)
    before = path.stat().st_ino
    with path.open("rb") as reader:
        files.write_atomic(str(path), b"two", 0o755)
        assert reader.read() == b"one"
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["x"]


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        files.write_atomic(str(tmp_path / "x"), b"", 0o644)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fails(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(str(path), b"new")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["x"])


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def syncs(handle: int) -> None:
        done.append("sync")
        fsync(handle)

    def renames(one: str, other: str) -> None:
        done.append("rename")
        rename(one, other)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "rename", renames)
    files.write_atomic(str(tmp_path / "x"), b"new")
    assert done == ["sync", "rename", "sync"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_atomic(str(tmp_path / "no" / "x"), b"")


def test_json(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    files.write_json(path, {"b": ["ü", None], "a": 1})
    assert files.read_json(path) == {"b": ["ü", None], "a": 1}
    assert Path(path).read_text(encoding="utf-8").startswith('{\n  "b": [\n    "ü",')


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"\x00"])
def test_broken_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(files.InvalidJson, match="is not valid JSON .* Move it away to start afresh") as error:
        files.read_json(str(path))
    assert str(path) in str(error.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    for path in (tmp_path / "no", tmp_path / "x" / "no"):
        assert files.read_bytes(str(path)) is None
        assert files.read_json(str(path)) is None
        assert files.remove(str(path)) is False
    with pytest.raises(IsADirectoryError):
        files.read_bytes(str(tmp_path))


def test_remove(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert files.remove(str(tmp_path / "x")) is True
    assert os.listdir(tmp_path) == []
