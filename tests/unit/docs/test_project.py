# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflow of the forge and the pre-commit hooks call targets of the Makefile, on the pinned ansible-cores."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]


def _database() -> str:
    """What make knows after it has read the Makefile, with all variables expanded in the rules. Runs nothing."""
    ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--print-data-base", "--no-builtin-rules", "--dry-run", "help"]
    return subprocess.run(command, cwd=ROOT, env=ours, capture_output=True, text=True, check=True).stdout


MAKE = _database()
TARGETS = set(re.findall(r"^([a-z][a-z_-]*):(?!=)", MAKE, re.MULTILINE))
PHONY = set(re.findall(r"^\.PHONY: (.*)$", MAKE, re.MULTILINE)[0].split())


def listed(variable: str) -> set[str]:
    """The words of a variable of the Makefile."""
    return set(re.findall(rf"^{variable} := (.*)$", MAKE, re.MULTILINE)[0].split())


def pinned() -> set[str]:
    """The ansible-cores that requirements/ pins for the checks, as "2.19"."""
    files = [ROOT / "requirements/lab.txt", *(ROOT / "requirements").glob("ansible-core-*.txt")]
    pins = [re.search(r"^ansible-core==(\d+\.\d+)", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files]
    return {pin[1] for pin in pins if pin}


def called() -> set[str]:
    """Every target that a step of the workflow makes, in all rows of the matrix."""
    found: set[str] = set()
    for job in WORKFLOW["jobs"].values():
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        for step in job["steps"]:
            command, *words = step.get("run", "make").split()
            assert command == "make", step
            for row in rows:
                text = " ".join(words)
                for name, value in row.items():
                    text = text.replace(f"${{{{ matrix.{name} }}}}", value)
                found |= set(text.split())
    return found


def test_the_workflow_calls_the_parts_of_make_test_all() -> None:
    code = listed("CODE")
    assert {"static", "hosts", *(f"{part}-newest" for part in code)} <= called() <= TARGETS
    assert code <= called() or "code" in called()


def test_the_matrix_has_the_pinned_ansible_cores() -> None:
    assert {row["core"] for row in WORKFLOW["jobs"]["code"]["strategy"]["matrix"]["include"]} == pinned()


def test_code_of_a_pull_request_does_not_run_as_root() -> None:
    for name, job in WORKFLOW["jobs"].items():
        if "self-hosted" in job["runs-on"]:
            assert job["if"] == "github.event_name != 'pull_request'", name


def test_the_hooks_are_the_parts_of_make_static() -> None:
    hooks = [hook for repo in HOOKS for hook in repo["hooks"]]
    assert {hook["entry"] for hook in hooks} == {f"make {part}" for part in listed("STATIC")}
    assert {repo["repo"] for repo in HOOKS} == {"local"}  # so they need no network


def test_every_target_is_phony() -> None:
    assert TARGETS == PHONY
