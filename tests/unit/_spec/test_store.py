# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records on a host: what is read, what is refused, and how many releases are kept."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.store import BrokenRecord
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record


def write(folder: Path, text: str | bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "instance.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return str(folder)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    value = a_record(release=True, env={"A": "ü"})
    store.write(str(tmp_path), value)
    assert store.read(str(tmp_path)) == value
    assert stat.S_IMODE((tmp_path / "instance.json").stat().st_mode) == 0o640


def test_no_record(tmp_path: Path) -> None:
    assert store.read(str(tmp_path)) is None
    assert store.read(str(tmp_path / "nothing")) is None


def without(*path: str) -> dict[str, Any]:
    value: Any = json.loads(json.dumps(a_record(release=True).to_json()))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return dict(value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        ("[]", "is not the record of an instance"),
        ("7", "is not the record of an instance"),
        ("{}", "is not the record of an instance"),
        ('{"format": "1"}', "is not the record of an instance"),
        ('{"format": 1}', "damaged, without a sound spec"),
        (json.dumps({**a_record().to_json(), "spec": []}), "without a sound spec"),
        (json.dumps(without("spec", "port")), "sound spec (port)"),
        (json.dumps(without("launch")), "sound launch (id, argv,"),
        (json.dumps(without("launch", "url")), "sound launch (url)"),
        (json.dumps(without("manager")), "sound manager"),
        (json.dumps({**a_record().to_json(), "image": "x.sif"}), "sound image"),
        (json.dumps({**a_record().to_json(), "release": []}), "sound release"),
        (json.dumps(without("release", "launch")), "sound release"),
    ],
)
def test_a_record_that_cannot_be_understood(tmp_path: Path, content: str | bytes, said: str) -> None:
    folder = write(tmp_path, content)
    with pytest.raises(BrokenRecord, match="Move it away to start afresh") as error:
        store.read(folder)
    assert said in str(error.value)
    assert f"{folder}/instance.json" in str(error.value)


def test_a_newer_format(tmp_path: Path) -> None:
    with pytest.raises(BrokenRecord, match="has format 2, this version of gpufleet.llamacpp knows up to 1") as error:
        store.read(write(tmp_path, '{"format": 2}'))
    assert "Use that version or a newer one" in str(error.value)


def test_the_oldest_releases_go(tmp_path: Path) -> None:
    for day in range(1, 9):
        release = a_record(release=True).release
        assert release
        store.keep_release(str(tmp_path), replace(release, proven=f"2026-10-0{day}T12:00:00Z"))
    kept = sorted(os.listdir(tmp_path / "releases"))
    assert [name[:8] for name in kept] == [f"2026100{day}" for day in (4, 5, 6, 7, 8)]
    content = json.loads((tmp_path / "releases" / kept[-1]).read_text())
    assert content["proven"] == "2026-10-08T12:00:00Z"
    assert stat.S_IMODE((tmp_path / "releases" / kept[0]).stat().st_mode) == 0o640


def test_names_and_others(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
        store.write(str(tmp_path / name), a_record())
    write(tmp_path / "broken", "{")
    (tmp_path / "shared").mkdir()
    assert store.names(str(tmp_path)) == ["a", "b", "broken", "c"]
    assert list(store.others(str(tmp_path), "b")) == ["a", "c"]
    assert store.names(str(tmp_path / "nothing")) == []
    assert store.others(str(tmp_path / "nothing"), "x") == {}
