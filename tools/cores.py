# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ansible-cores that the tests use: the oldest supported one in .venv, and the newest that runs on this machine.

Usage: cores.py ARGUMENT...     runs Python with these arguments in the environment of the newest one
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import fill_venv
import pythons

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"


@dataclass(frozen=True)
class Environment:
    """One ansible-core in its own virtual environment."""

    core: str  # "2.19"
    folder: Path

    @property
    def python(self) -> str:
        """The version of its interpreter, "3.11"."""
        return pythons.version_of(str(self.folder / "bin" / "python")) or ""

    def __str__(self) -> str:
        return f"ansible-core {self.core} on Python {self.python}"


def pinned_core(requirements: Path) -> str:
    """The "2.19" of the line ansible-core==2.19.14. Raises SystemExit where the file pins none."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if line.startswith("ansible-core=="):
            return ".".join(line.partition("==")[2].split(".")[:2])
    raise SystemExit(f"{requirements} pins no ansible-core.")


def floor() -> Environment:
    """The oldest supported one, which `make venv` makes."""
    return Environment(pinned_core(ROOT / "requirements" / "lab.txt"), ROOT / ".venv")


def newest() -> Environment | None:
    """The newest one that an interpreter of this machine runs, made if it is missing; None if there is none."""
    files = sorted(
        (ROOT / "requirements").glob("ansible-core-*.txt"),
        key=lambda path: [int(number) for number in pinned_core(path).split(".")],
        reverse=True,
    )
    for requirements in files:
        python = pythons.find(pythons.declared(str(requirements)))
        if python:
            made = Environment(pinned_core(requirements), BUILD / requirements.stem)
            fill_venv.make(made.folder, requirements, python)
            return made
    return None


def newest_or_exit() -> Environment:
    """The newest one. Ends this program without an error if this machine has no Python for it."""
    found = newest()
    if found is None:
        print(f"This machine has no Python for a newer ansible-core than {floor().core}. That one has been tested.")
        sys.exit(0)
    return found


if __name__ == "__main__":
    python = newest_or_exit().folder / "bin" / "python"
    os.execv(python, [str(python), *sys.argv[1:]])
