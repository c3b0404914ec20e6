# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflow of the forge and the pre-commit hooks call targets of the Makefile, on the pinned ansible-cores."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]


def prerequisites(target: str) -> set[str]:
    """The parts that a target of the Makefile makes side by side."""
    recipe = re.search(rf"^{target}:.*\n\t@\$\(MAKE\) -j2 --output-sync=target (.*)$", MAKEFILE, re.MULTILINE)
    assert recipe
    return set(recipe[1].split())


def pinned() -> set[str]:
    """The ansible-cores that requirements/ pins for the checks, as "2.19"."""
    files = [ROOT / "requirements/lab.txt", *(ROOT / "requirements").glob("ansible-core-*.txt")]
    pins = [re.search(r"^ansible-core==(\d+\.\d+)", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files]
    return {pin[1] for pin in pins if pin}


def test_the_workflow_calls_the_parts_of_make_test() -> None:
    steps = [step["run"].split() for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert {step[0] for step in steps} == {"make"}
    called = {step[1] for step in steps}
    assert {"static", "code", "hosts"} <= called <= TARGETS


def test_the_matrix_has_the_pinned_ansible_cores() -> None:
    assert {row["core"] for row in WORKFLOW["jobs"]["code"]["strategy"]["matrix"]["include"]} == pinned()


def test_code_of_a_pull_request_does_not_run_as_root() -> None:
    for name, job in WORKFLOW["jobs"].items():
        if "self-hosted" in job["runs-on"]:
            assert job["if"] == "github.event_name != 'pull_request'", name


def test_the_hooks_are_the_parts_of_make_static() -> None:
    hooks = [hook for repo in HOOKS for hook in repo["hooks"]]
    assert {hook["entry"] for hook in hooks} == {f"make {part}" for part in prerequisites("static")}
    assert {repo["repo"] for repo in HOOKS} == {"local"}  # so they need no network


def test_every_target_is_phony() -> None:
    listed = MAKEFILE.partition(".PHONY:")[2].replace("$(TESTS)", "static code build hosts").replace("\\", "").split()
    assert set(listed) == TARGETS
