# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import file_record

FOLDER = ".records"
CONTENT = b"some content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HOUR = 3600 * 10**9


@pytest.fixture
def path(tmp_path):
    """A file that was written an hour ago."""
    file = tmp_path / "file.bin"
    file.write_bytes(CONTENT)
    age(file)
    return str(file)


def age(file, by=HOUR):
    status = os.stat(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - by))


def test_a_recorded_file_is_known_again(path):
    kept = file_record.record(path, FOLDER, SHA256, {"url": "https://h/file.bin"}, {"name": "x"})
    assert file_record.recorded(path, FOLDER) == kept
    assert (kept.sha256, kept.size, kept.source, kept.details) == (
        SHA256,
        len(CONTENT),
        {"url": "https://h/file.bin"},
        {"name": "x"},
    )


def test_the_record_lies_in_its_folder_beside_the_file(path, tmp_path):
    file_record.record(path, FOLDER, SHA256, {})
    assert sorted(json.loads((tmp_path / FOLDER / "file.bin.json").read_text())) == [
        "checksum",
        "ctime_ns",
        "details",
        "inode",
        "mtime_ns",
        "recorded_ns",
        "sha256",
        "size",
        "source",
    ]


def rewrite_in_place_and_hide_it(path):
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"S")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_an_equal_file(path):
    status = os.stat(path)
    with open(path + ".new", "wb") as file:
        file.write(CONTENT)
    os.utime(path + ".new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rename(path + ".new", path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 3),
        age,
        rewrite_in_place_and_hide_it,
        replace_by_an_equal_file,
        lambda path: os.chmod(path, 0o600),
        os.unlink,
    ],
)
def test_a_changed_stat_ends_the_trust(path, change):
    file_record.record(path, FOLDER, SHA256, {})
    change(path)
    assert file_record.recorded(path, FOLDER) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: '"text"',
        lambda text: text.replace('"size"', '"sise"'),
        lambda text: text.replace(f'"sha256": "{SHA256}"', '"sha256": "masked"'),
        lambda text: text.replace(f'"size": {len(CONTENT)}', f'"size": "{len(CONTENT)}"'),
        lambda text: text.replace('"source": {}', '"source": []'),
        lambda text: "\x00" * len(text),
    ],
)
def test_a_damaged_record_is_no_record(path, tmp_path, damage):
    file_record.record(path, FOLDER, SHA256, {})
    place = tmp_path / FOLDER / "file.bin.json"
    place.write_text(damage(place.read_text()))
    assert file_record.recorded(path, FOLDER) is None
    assert file_record.last_record(path, FOLDER) is None


@pytest.mark.parametrize("bits", [0x01, 0x81])
def test_every_flipped_byte_of_a_record_is_harmless(path, tmp_path, bits):
    """One bit makes another digit of a digit."""
    kept = file_record.record(path, FOLDER, SHA256, {})
    place = tmp_path / FOLDER / "file.bin.json"
    content = place.read_bytes()
    for position in range(len(content)):
        place.write_bytes(content[:position] + bytes([content[position] ^ bits]) + content[position + 1 :])
        found = file_record.recorded(path, FOLDER)
        assert found is None or found.sha256 == kept.sha256


def test_a_record_that_cannot_be_read_is_no_record(path, tmp_path):
    (tmp_path / FOLDER / "file.bin.json").mkdir(parents=True)
    assert file_record.recorded(path, FOLDER) is None


def test_a_file_written_just_before_it_was_read_is_read_once_more(tmp_path):
    file = tmp_path / "fresh.bin"
    file.write_bytes(CONTENT)
    file_record.record(str(file), FOLDER, SHA256, {})
    assert file_record.recorded(str(file), FOLDER) is None
    # As the next run does it, when the file has rested: its record is trusted from then on.
    rested = os.stat(file).st_mtime_ns + file_record.TICK_NS + 1
    file_record.record(str(file), FOLDER, SHA256, {}, known_since_ns=rested)
    assert file_record.recorded(str(file), FOLDER).sha256 == SHA256


def test_a_settled_file_is_trusted_at_once(tmp_path):
    file = tmp_path / "fresh.bin"
    file.write_bytes(CONTENT)
    file_record.settle(str(file))
    file_record.record(str(file), FOLDER, SHA256, {})
    assert file_record.recorded(str(file), FOLDER).sha256 == SHA256
    file.write_bytes(CONTENT[::-1])
    assert file_record.recorded(str(file), FOLDER) is None


def test_a_file_from_a_clock_that_is_ahead_is_settled_too(tmp_path):
    file = tmp_path / "ahead.bin"
    file.write_bytes(CONTENT)
    age(file, -HOUR)
    file_record.settle(str(file))
    assert os.stat(file).st_mtime_ns < time.time_ns() - file_record.TICK_NS


def test_the_last_record_stays_readable_when_the_file_changed(path):
    file_record.record(path, FOLDER, SHA256, {"src": "/a"})
    os.truncate(path, 1)
    assert file_record.last_record(path, FOLDER).source == {"src": "/a"}


def test_forgetting_removes_the_record_and_an_empty_folder(path, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(b"")
    for one in (path, str(other)):
        file_record.record(one, FOLDER, SHA256, {})
    file_record.forget(path, FOLDER)
    assert [entry.name for entry in (tmp_path / FOLDER).iterdir()] == ["other.bin.json"]
    file_record.forget(str(other), FOLDER)
    file_record.forget(str(other), FOLDER)
    assert not (tmp_path / FOLDER).exists()


def test_hashing(path, tmp_path):
    assert file_record.hash_file(path) == SHA256
    large = tmp_path / "large.bin"
    content = os.urandom(file_record.READ_BYTES + 12345)
    large.write_bytes(content)
    assert file_record.hash_file(str(large)) == hashlib.sha256(content).hexdigest()


def test_a_file_that_changes_while_it_is_hashed_is_an_error(path, monkeypatch):
    real = os.fstat

    def fstat(handle):
        status = real(handle)
        with open(path, "ab") as file:
            file.write(b"more")
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(file_record.FileChanged, match="written to while"):
        file_record.hash_file(path)
