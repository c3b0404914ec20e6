# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of an image: read once from a fake of it, and cached in real files."""

from __future__ import annotations

# pylint: disable=dangerous-default-value # no test changes them
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import probe as image_probe
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.probe import FactsCache, ServerFacts
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import Image
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import IMAGE, SERVER

ARGV = ["apptainer", "exec", "--nv", IMAGE, SERVER, "-m", "x"]
DIGEST = "ab" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as the role makes it, with the folder of images."""
    (tmp_path / "shared").mkdir()
    return tmp_path


def look(
    image: Image, home: Path, *, writes: bool = True, sha256: str | None = DIGEST, argv: Any = ARGV
) -> ServerFacts:
    server = argv.index(IMAGE) + 1
    return image_probe.probe(argv[:server], argv[server], image, FactsCache(str(home), writes), sha256)


def test_the_container_is_that_of_the_launch(home: Path) -> None:
    image = Image(inside="version=12.8.1\n")
    facts = look(image, home)
    assert (facts.build, facts.cuda, facts.compatible, facts.failure) == (
        "0.7.0 (build 11669, commit Debian)",
        (12, 8),
        False,
        None,
    )
    assert facts.options[1].names == ("-m", "--model")
    assert [argv[:8] for argv in image.asked] == [["timeout", "-k", "5", "60", *ARGV[:4]]], "one container is started"


def test_the_facts_are_cached_by_the_images_content(home: Path) -> None:
    first = look(Image(), home)
    again = Image()
    assert look(again, home) == first
    assert again.asked == []
    look(again, home, sha256="cd" * 32)
    assert len(again.asked) == 1


def test_another_server_of_the_same_image_is_read(home: Path) -> None:
    look(Image(), home)
    again = Image()
    look(again, home, argv=[*ARGV[:4], "/other"])
    assert len(again.asked) == 1


@pytest.mark.parametrize("changes", [{"writes": False}, {"sha256": None}], ids=str)
def test_nothing_is_written(home: Path, changes: dict[str, Any]) -> None:
    assert look(Image(), home, **changes).options
    assert list((home / "shared").iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"reader": 0}', "no json", json.dumps({"reader": 1, "server": SERVER, "options": []})]
)
def test_a_broken_cache_file_is_made_again(home: Path, content: str) -> None:
    look(Image(), home)
    path = home / "shared/.options" / f"{DIGEST}.json"
    sound = json.loads(path.read_text())
    path.write_text(content)
    again = Image()
    assert look(again, home).options
    assert len(again.asked) == 1
    assert json.loads(path.read_text()) == sound


def test_the_file_that_version_0_1_0_wrote_is_read(home: Path) -> None:
    (home / "shared/.options").mkdir()
    option = {"names": ["-m", "--model"], "hint": "FNAME", "about": "model path", "env": "", "choices": [], "terms": []}
    value = {"reader": 1, "server": SERVER, "options": [option], "build": "11434 (x)", "cuda": [12, 8]}
    path = home / "shared/.options" / f"{DIGEST}.json"
    path.write_text(json.dumps({**value, "compatible": False, "failure": None}))
    image = Image()
    facts = look(image, home)
    assert (facts.build, facts.cuda, facts.options[0].hint, image.asked) == ("11434 (x)", (12, 8), "FNAME", [])


def test_a_place_that_cannot_be_written(home: Path) -> None:
    (home / "shared/.options").write_text("a file")
    assert look(Image(), home).options


def test_a_home_is_not_made_for_it(home: Path) -> None:
    (home / "shared").rmdir()
    assert look(Image(), home).options
    assert list(home.iterdir()) == []


def test_a_server_that_does_not_start(home: Path) -> None:
    facts = look(Image(help_code=127), home)
    assert (facts.options, facts.failure) == ((), (127, "it does not start"))
    assert list((home / "shared").iterdir()) == []


def test_a_help_of_another_layout(home: Path) -> None:
    facts = look(Image(text="--temp N   x\n"), home)
    assert (facts.options, facts.failure) == ((), None)
    assert list((home / "shared").iterdir()) == []


@pytest.mark.parametrize(
    ("build", "number"),
    [
        ("10434 (7e4c0a9)", 10434),
        ("0.7.0 (build 11669, commit Debian)", 11669),
        ("0.7.0 build 11669", 11669),
        ("11434", 11434),
        ("b11434-7e4c0a9", 11434),
        ("0.3.0 (abcdef1)", None),
        (None, None),
    ],
)
def test_the_number_of_a_build(build: str | None, number: int | None) -> None:
    assert image_probe.build_number(build) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version=\nrequire=\nlibraries=/.singularity.d/libs\nfolder=/usr/local/cuda\n", (None, False)),
        ("version=12.8.1\nrequire=cuda>=12.9\n", ((12, 8), False)),
        ("version=\nrequire=cuda>=12.4 brand=tesla,driver>=470,driver<471\n", ((12, 4), False)),
        ("version=\nrequire=brand=x cuda>=13.0\n", ((13, 0), False)),
        ("version=\nrequire=\nlibraries=\nfolder=/usr/local/cuda-11.8\n", ((11, 8), False)),
        ("version=13.1\nlibraries=/x:/usr/local/cuda/compat:/y\n", ((13, 1), True)),
        ("", (None, False)),
    ],
)
def test_the_cuda_of_an_image(text: str, expected: tuple[tuple[int, int] | None, bool]) -> None:
    assert image_probe.cuda(text) == expected
