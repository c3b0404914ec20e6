# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container runtime: which one is found, and the certificates that containers get."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime


def program(folder: Path, name: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return str(folder / name)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime, "SEARCH", (str(tmp_path / "usual"),))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_none(empty: Path) -> None:
    assert runtime.find() is None


def test_outside_of_the_path(empty: Path) -> None:
    found = program(empty / "usual", "singularity")
    assert runtime.find() == found


def test_apptainer_before_singularity(empty: Path) -> None:
    program(empty / "path", "singularity")
    found = program(empty / "usual", "apptainer")
    assert runtime.find() == found


def test_no_path_at_all(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    found = program(empty / "usual", "apptainer")
    assert runtime.find() == found


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CERTIFICATES", (str(tmp_path), str(tmp_path / "no")))
    assert runtime.certificate_binds() == [f"{tmp_path}:{tmp_path}:ro"]
