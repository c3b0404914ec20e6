# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an image: the real shell script, run against a folder that stands for the image."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import inspect as image_inspect
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.inspect import ImageReading
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime

SERVER = """#!/bin/sh
case $1 in
--version) echo "version: 6123 (abcdef)" >&2; echo "built with GNU" >&2 ;;
--help) echo "-t,    --threads N"; echo; echo "  with 'quotes', \\$(id) and a \\\\ in it"; echo "noise" >&2 ;;
*) exit 9 ;;
esac
"""


def program(path: Path, text: str = SERVER) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


class Image:
    """An image whose files are this machine's; ``begin`` has the variables that its containers get."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.begin = [
            "env",
            "-i",
            f"PATH={folder}:/usr/bin:/bin",
            *(f"{key}={value}" for key, value in variables.items()),
        ]
        self.starts = 0

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.starts += 1
        done = subprocess.run(argv, capture_output=True, check=False, text=True)
        return done.returncode, "INFO: a runtime may print something\n" + done.stdout, done.stderr

    def read(self, server: str | None = None) -> ImageReading:
        return image_inspect.read(self.begin, server, self)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an image may have its server, beside its PATH."""
    monkeypatch.setattr(runtime, "SERVER_PATHS", ("/nothing", str(tmp_path / "a b" / "llama-server")))
    return tmp_path


def test_one_container_answers_everything(tmp_path: Path) -> None:
    server = program(tmp_path / "bin" / "llama-server")
    program(tmp_path / "a b" / "llama-server")
    image = Image(tmp_path / "bin", CUDA_VERSION="12.8.1", LD_LIBRARY_PATH="/x:/usr/local/cuda/compat")
    reading = image.read()
    assert (reading.server, reading.build, reading.failure) == (server, "6123 (abcdef)", None)
    assert reading.help == "-t,    --threads N\n\n  with 'quotes', $(id) and a \\ in it"
    assert reading.cuda.splitlines()[:3] == ["version=12.8.1", "require=", "libraries=/x:/usr/local/cuda/compat"]
    assert image.starts == 1


def test_the_server_in_a_known_place(tmp_path: Path) -> None:
    server = program(tmp_path / "a b" / "llama-server")
    assert Image(tmp_path / "bin").read().server == server


def test_the_server_that_the_operator_names(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "llama-server")
    server = program(tmp_path / "other")
    image = Image(tmp_path / "bin")
    assert image.read(server).server == server
    assert image.starts == 1


def test_no_server(tmp_path: Path) -> None:
    reading = Image(tmp_path).read()
    assert (reading.server, reading.failure) == (None, (0, ""))


def test_a_named_server_that_is_not_in_the_image(tmp_path: Path) -> None:
    """The runtime itself says so, in the words that lint_server understands."""
    server = str(tmp_path / "none")
    reading = Image(tmp_path).read(server)
    assert reading.server == server
    assert reading.failure and reading.failure[0] == 127


def test_an_image_without_a_shell() -> None:
    asked = []

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        asked.append(list(argv))
        return (255, "", "FATAL: stat /bin/sh") if "/bin/sh" in argv else (0, "the help", "")

    assert image_inspect.read(["apptainer", "exec", "/x.sif"], "/server", run) == ImageReading(
        "/server", help="the help"
    )
    assert asked[1][-5:] == ["apptainer", "exec", "/x.sif", "/server", "--help"]


@pytest.mark.parametrize("failing", ["--version", "--help"])
def test_a_server_that_does_not_start(tmp_path: Path, failing: str) -> None:
    server = program(
        tmp_path / "llama-server", SERVER.replace(f"{failing})", f'{failing}) echo "libcuda.so.1" >&2; exit 127;;\nx)')
    )
    reading = Image(tmp_path).read()
    assert reading.server == server
    if failing == "--help":
        assert (reading.build, reading.help) == ("6123 (abcdef)", "")
        assert reading.failure == (127, "libcuda.so.1\n")
    else:
        assert (reading.build, reading.failure) == (None, None)


def test_an_image_that_cannot_be_run() -> None:
    reading = image_inspect.read(["x"], None, lambda argv: (255, "", "FATAL: no image\n"))
    assert reading == ImageReading(failure=(255, "FATAL: no image\n"))


def test_a_container_is_isolated_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = image_inspect.container("/usr/bin/apptainer", "/x.sif")
    assert begin == ["/usr/bin/apptainer", "exec", *runtime.ISOLATION, "/x.sif"]
    monkeypatch.setattr(image_inspect, "NVIDIA", "/dev/null")
    assert image_inspect.container("/usr/bin/apptainer", "/x.sif")[-2:] == ["--nv", "/x.sif"]
    assert image_inspect.bounded(["a"]) == ["timeout", "-k", "5", "60", "a"]
