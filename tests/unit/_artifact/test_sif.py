# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIF files: what is one, and when one has to be pulled."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import fetch, identity, sif

CONTENT = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"rest" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.sif"
    path.write_bytes(CONTENT)
    identity.settle(str(path))
    return path


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "it is empty"),
        (b"\n <!DOCTYPE html>" + b"x" * 100, "it is an HTML page"),
        (b"x" * 100, "it is something else"),
        (CONTENT[:41], "it is something else"),
        (CONTENT[1:], "it is something else"),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(content)
    (problem,) = sif.problems(str(path))
    assert problem == f"image: {path} is not a SIF image, {kind}. Pull it again, or name the right file."


def test_an_image(image: Path) -> None:
    assert sif.problems(str(image)) == []


def test_a_folder_and_nothing(tmp_path: Path) -> None:
    assert sif.problems(str(tmp_path)) == [f"image: {tmp_path} is a folder; it has to be a SIF file."]
    (problem,) = sif.problems(str(tmp_path / "no"))
    assert "cannot be read (No such file or directory)" in problem


def test_a_stamp_changes_with_the_file(image: Path) -> None:
    before = sif.stamp(str(image))
    assert before == sif.stamp(str(image))
    os.utime(image)
    assert sif.stamp(str(image)) != before
    assert sif.stamp(str(image) + ".no") is None


def test_a_digest_is_read_once(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sif.sha256(str(image)) == DIGEST
    sif.remember(str(image), "a" * 64, {"url": "https://x"})
    assert sif.sha256(str(image)) == "a" * 64
    image.write_bytes(CONTENT + b"more")
    assert sif.sha256(str(image)) == hashlib.sha256(CONTENT + b"more").hexdigest()


def test_a_folder_that_takes_no_record(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(identity, "record", fails)
    sif.remember(str(image), DIGEST, {})
    assert sif.sha256(str(image)) == DIGEST


def test_when_to_pull(image: Path) -> None:
    path = str(image)
    assert sif.pull_reason(path + ".no", DIGEST, "missing") == "it is not on the host"
    assert sif.pull_reason(path, DIGEST, "missing") is None
    assert sif.pull_reason(path, "b" * 64, "missing") == f"its sha256 is {DIGEST[:12]}..., wanted is bbbbbbbbbbbb..."
    sif.remember(path, "b" * 64, {})
    assert sif.pull_reason(path, "b" * 64, "missing") is None
    assert sif.pull_reason(path, "b" * 64, "always") is not None
    assert sif.pull_reason(path, DIGEST, "always") is None


def test_a_touched_image_is_read_once(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sif.keep(str(image), DIGEST, "https://u:p@x/y.sif")
    monkeypatch.setattr(identity, "hash_file", lambda path: "read again")
    assert sif.pull_reason(str(image), DIGEST, "missing") is None
    sif.keep(str(image), "c" * 64, "https://elsewhere/y.sif")
    known = identity.recorded(str(image), sif.RECORDS)
    assert known and (known.sha256, known.source) == (DIGEST, {"url": "https://x/y.sif"})


def test_a_pull_is_remembered_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shared" / "x.sif"

    def fetched(sources: Any, destination: str, **more: Any) -> Any:
        assert (sources[0].url, more["sha256"]) == ("https://u:p@x/y.sif?token=1", DIGEST)
        path.write_bytes(CONTENT)
        return SimpleNamespace(bytes_fetched=432)

    monkeypatch.setattr(fetch, "fetch", fetched)
    assert sif.pull("https://u:p@x/y.sif?token=1", str(path), DIGEST) == 432
    known = identity.recorded(str(path), sif.RECORDS)
    assert known and (known.sha256, known.source) == (DIGEST, {"url": "https://x/y.sif"})
