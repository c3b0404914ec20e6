# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python interpreters this machine has, for the environments in which the collection is checked."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

# What the oldest supported ansible-core runs on (its ansible_test constants: controller versions).
FLOOR_VERSIONS = ("3.11", "3.12", "3.13")


def version_of(python: str) -> str | None:
    """The interpreter's "3.11", or None where it does not run or cannot make an environment.

    pyenv has a shim for every version and runs only the selected ones: so the interpreter is asked, not looked at.
    """
    # Debian ships ensurepip with python3-venv only; without it `python -m venv` makes an environment that lacks pip.
    question = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, check=False, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def candidates(version: str) -> list[str]:
    """Paths where an interpreter of that version may be, the likeliest first; each path once."""
    home = os.path.expanduser("~")
    paths = [
        shutil.which(f"python{version}"),
        *sorted(glob.glob(f"{home}/.pyenv/versions/{version}.*/bin/python{version}"), reverse=True),
        f"/usr/local/bin/python{version}",
        f"/usr/bin/python{version}",
    ]
    return list(dict.fromkeys(path for path in paths if path and os.path.exists(path)))


def find(versions: Iterable[str]) -> str | None:
    """The first interpreter that runs, in the order of the versions; None where the machine has none of them."""
    for version in versions:
        for path in candidates(version):
            if version_of(path) == version:
                return path
    return None


def for_floor() -> str:
    """The interpreter for .venv: the machine's python3 where it fits, else another one that fits.

    Raises SystemExit, with what to install.
    """
    default = shutil.which("python3") or sys.executable
    if version_of(default) in FLOOR_VERSIONS:
        return default
    found = find(FLOOR_VERSIONS)
    if found is None:
        raise SystemExit(
            f"No usable Python: {default} is {version_of(default) or 'without the venv module'}, and no other one of "
            f"{', '.join(FLOOR_VERSIONS)} is here. On Debian: apt-get install python3-venv (or: make setup)."
        )
    return found


def declared(requirements: str) -> tuple[str, ...]:
    """The versions in the line "# python: 3.12 3.13" of a requirements file. Raises SystemExit where there is none."""
    with open(requirements, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# python:"):
                return tuple(line.partition(":")[2].split())
    raise SystemExit(f"{requirements} has no line '# python: 3.12 3.13': it must say which Pythons it is for.")
