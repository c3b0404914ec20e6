# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a virtual environment hold exactly what a requirements file pins; nothing is done when it already does.

Usage: fill_venv.py FOLDER REQUIREMENTS [PYTHON]
"""

from __future__ import annotations

import collections
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pythons


def files_of(requirements: Path) -> list[Path]:
    """The requirements file and every file that it names by -r or -c, each once."""
    found: list[Path] = []
    waiting = [requirements]
    while waiting:
        path = waiting.pop().resolve()
        if path in found:
            continue
        found.append(path)
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(("-r ", "-c ")):
                waiting.append(path.parent / line[3:].strip())
    return found


def wanted(folder: Path, requirements: Path) -> str:
    """What identifies the environment: the pins, and where it is (an environment that was moved does not work)."""
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in files_of(requirements):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamp_of(folder: Path, requirements: Path) -> Path:
    """The file that says which pins of the requirements file the environment has."""
    return folder / f".{requirements.parent.name}-{requirements.name}.sha256"


def install(python: str, requirements: Path) -> None:
    """Run pip, showing how far it is every ten seconds. Raises SystemExit with pip's last lines."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    # Of what is installed, little is ever imported: to compile all of it takes a quarter of the time.
    command.append("--no-compile")
    begin = shown = time.monotonic()
    collected = 0
    fetching = True
    last: collections.deque[str] = collections.deque(maxlen=25)
    with subprocess.Popen(
        [*command, "-r", str(requirements)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout or ():
            last.append(line)
            collected += line.startswith("Collecting ")
            if fetching and line.startswith("Installing collected"):
                fetching = False
                print(f"  {time.monotonic() - begin:3.0f} s: {collected} packages fetched, installing them", flush=True)
            elif fetching and time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"  {shown - begin:3.0f} s: {collected} packages fetched", flush=True)
    if pip.returncode != 0:
        sys.stderr.writelines(last)
        raise SystemExit(f"pip could not install {requirements.name} into {Path(python).parents[1]}: see above.")


def make(folder: Path, requirements: Path, python: str | None = None) -> None:
    """Bring the environment to what the file pins; it is made anew where its Python or its place is another."""
    stamp = stamp_of(folder, requirements)
    if stamp.exists() and stamp.read_text() == wanted(folder, requirements):
        return
    python = python or pythons.for_floor()
    own = str(folder / "bin" / "python")
    place = folder / ".place"
    if pythons.version_of(own) != pythons.version_of(python) or not (
        place.exists() and place.read_text() == str(folder.resolve())
    ):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        place.write_text(str(folder.resolve()))
    begin = time.monotonic()
    name = os.path.relpath(folder)
    print(f"Filling {name} from {os.path.relpath(requirements)} (Python {pythons.version_of(own)})", flush=True)
    install(own, requirements)
    # Whoever asks for a part of it later, has it.
    for path in files_of(requirements):
        stamp_of(folder, path).write_text(wanted(folder, path))
    print(f"  {name} is ready, {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), sys.argv[3] if len(sys.argv) > 3 else None)
