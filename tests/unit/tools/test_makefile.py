# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every target of the Makefile is phony, because a file or folder of its name may exist; and `make help` shows it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Without the variables of the make that runs the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
# Steps of other targets, and one target for each scenario.
WITHOUT_HELP = {"link", "sanity-newest", "unit-newest"}


def make(*arguments: str) -> str:
    """Run make and return its output. With --question, exit status 1 means that a target is not up to date."""
    argv = ["make", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def targets() -> dict[str, bool]:
    """Whether a target is phony, by its name, as make itself reads the Makefile."""
    printed = make("--print-data-base", "--question", "--no-builtin-rules", "--no-builtin-variables", "help")
    found = {}
    for block in printed.partition("\n# Files\n")[2].split("\n\n"):
        name = re.match(r"\s*([\w-]+):(?!=)", block)
        if name:
            found[name[1]] = "Phony target" in block
    assert {"help", "test", "molecule-default"} <= set(found)
    return found


def test_every_target_is_phony(targets: dict[str, bool]) -> None:
    assert [name for name, phony in targets.items() if not phony] == []


def test_help_shows_every_target(targets: dict[str, bool]) -> None:
    listed = set(re.findall(r"^  make (\S+) +\S", make("help"), re.MULTILINE))
    assert {name for name in targets if not name.startswith("molecule-")} - WITHOUT_HELP == listed


def test_there_is_a_target_for_every_scenario(targets: dict[str, bool]) -> None:
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    assert {name.partition("-")[2] for name in targets if name.startswith("molecule-")} == scenarios
