# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages for people: no link is dead, and the causes of failures are those of the gate."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
REPOSITORY = "https://github.com/gpufleet/llamacpp/blob/main/"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *(ROOT / name for name in ("bench/README.md", "molecule/README.md", "tests/lab/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "roles").glob("*/README.md")),
]
CODE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def targets(page: Path) -> list[str]:
    """Where the links of a page lead, without those in its code blocks."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as GitHub and myst-parser make them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    dead = []
    for target in targets(page):
        here = target.replace(REPOSITORY, f"{ROOT}/")
        if "://" in here:
            continue
        path, dummy, anchor = here.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert dead == []


def test_every_page_is_named_by_the_first() -> None:
    named = {(ROOT / "docs" / target).resolve() for target in targets(ROOT / "docs/index.md")}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - named == {ROOT / "docs/index.md"}


def test_troubleshooting_has_the_causes_of_the_gate() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/causes.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
