# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ansible-cores that the collection is checked on: the oldest supported one in .venv, the newest that runs here."""

from __future__ import annotations

import os
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
    """The oldest supported one; `make venv` has made it."""
    return Environment(pinned_core(ROOT / "requirements" / "lab.txt"), ROOT / ".venv")


def newest() -> Environment | None:
    """The newest one that an interpreter of this machine runs, made where it is missing; None where there is none."""
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


def chosen() -> list[Environment]:
    """The environments to check on: the one of the variable CORE ("2.19"), or all that this machine has.

    Raises SystemExit if it does not have that one.
    """
    core, oldest = os.environ.get("CORE", ""), floor()
    if core == oldest.core:
        return [oldest]
    latest = newest()
    if core and (latest is None or core != latest.core):
        raise SystemExit(
            f"CORE={core}: this machine has ansible-core {oldest.core}{f' and {latest.core}' if latest else ''}."
        )
    if latest is None:
        print(f"No Python for a newer ansible-core than {oldest.core} on this machine: only that one is tested here.")
        return [oldest]
    return [latest] if core else [oldest, latest]


if __name__ == "__main__":
    newest()
