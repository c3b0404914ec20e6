# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIF files: what is one, and when it is still the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import sif

CONTENT = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"rest" * 100


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.sif"
    path.write_bytes(CONTENT)
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
