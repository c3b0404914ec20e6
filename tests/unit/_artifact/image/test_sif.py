# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a SIF file, and what is none."""

from __future__ import annotations

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
        (b"", "empty"),
        (b"\n <!DOCTYPE html>" + b"x" * 100, "an HTML page"),
        (b"x" * 100, "something else"),
        (CONTENT[:41], "something else"),
        (CONTENT[1:], "something else"),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(content)
    problem = sif.problem(str(path))
    assert problem
    assert problem.text == f"{path} is not a SIF image but {kind}"
    shown = sif.problem(str(path), "oras://r.io/x:v1")
    assert shown
    assert shown.text == f"oras://r.io/x:v1 is not a SIF image but {kind}"


def test_an_image(image: Path) -> None:
    assert sif.problem(str(image)) is None


def test_a_folder_and_nothing(tmp_path: Path) -> None:
    assert str(sif.problem(str(tmp_path))) == f"{tmp_path} is a folder. Name a SIF file."
    assert "cannot be read (No such file or directory)" in str(sif.problem(str(tmp_path / "no")))
