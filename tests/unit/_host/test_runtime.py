# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container runtime: which one is found, and how the image is asked where llama-server lies."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
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


class Image:
    """An image whose files are a folder's: runs what it is given on this machine, with the folder's own PATH."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: list[str] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.seen = list(argv)
        command = argv[argv.index("/x.sif") + 1 :]
        done = subprocess.run(command, env={"PATH": self.path}, capture_output=True, check=False, text=True)
        return done.returncode, "INFO: a runtime may say things\n" + done.stdout, done.stderr


def test_the_server_on_the_images_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = program(tmp_path / "bin", "llama-server")
    monkeypatch.setattr(runtime, "SERVER_PATHS", (program(tmp_path / "opt", "llama-server"),))
    image = Image(str(tmp_path / "bin"))
    assert runtime.find_server(image, "/usr/bin/apptainer", "/x.sif") == (on_path, "")
    assert image.seen[: 3 + len(runtime.ISOLATION)] == ["/usr/bin/apptainer", "exec", *runtime.ISOLATION, "/x.sif"]


def test_the_server_in_a_known_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = program(tmp_path / "a b", "llama-server")
    monkeypatch.setattr(runtime, "SERVER_PATHS", ("/nothing", known))
    assert runtime.find_server(Image(str(tmp_path)), "apptainer", "/x.sif") == (known, "")


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "SERVER_PATHS", ("/nothing",))
    assert runtime.find_server(Image(str(tmp_path)), "apptainer", "/x.sif")[0] is None


def test_an_image_that_cannot_be_run() -> None:
    assert runtime.find_server(lambda argv: (255, "", "FATAL: no image\n"), "apptainer", "/x.sif") == (
        None,
        "FATAL: no image",
    )
