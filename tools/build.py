# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection as users get it, and see that nothing is in it that they do not need.

Usage: build.py [--importer FOLDER]; with the folder of an environment that has galaxy-importer, that one judges it too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from cores import BUILD, ROOT
from sanity import copy_of_checkout

# What may stand at the top of the archive.
EXPECTED = {
    *("FILES.json", "MANIFEST.json", "README.md", "LICENSE", "CHANGELOG.md"),
    *("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("changelogs", "docs", "inventory", "meta", "playbooks", "plugins", "roles"),
}
NEVER = ("inventory/lab", "changelogs/fragments")
LARGEST = 1 << 20  # bytes of one file


def build() -> Path:
    """The archive, built from a copy that holds only what git knows or would take."""
    copy = copy_of_checkout(BUILD / "archive")
    for old in BUILD.glob("gpufleet-llamacpp-*.tar.gz"):
        old.unlink()
    galaxy = ROOT / ".venv" / "bin" / "ansible-galaxy"
    subprocess.run(
        [galaxy, "collection", "build", "--output-path", BUILD, "--force"],
        cwd=copy,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return next(BUILD.glob("gpufleet-llamacpp-*.tar.gz"))


def problems(archive: Path) -> list[str]:
    """What is in the archive and should not be, a sentence each."""
    found = []
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            top = member.name.split("/")[0]
            if top not in EXPECTED or "__pycache__" in member.name or member.name.startswith(NEVER):
                found.append(f"{member.name} is in the archive; a line in build_ignore of galaxy.yml keeps it out.")
            if member.size > LARGEST:
                found.append(f"{member.name} has {member.size} bytes; at most {LARGEST} are fine.")
    return found


def main(arguments: list[str]) -> int:
    """Build and look; with an environment of galaxy-importer, let it judge."""
    archive = build()
    found = problems(archive)
    for problem in found:
        print(problem)
    with tarfile.open(archive) as tar:
        print(f"{os.path.relpath(archive)}: {len(tar.getmembers())} files, {archive.stat().st_size // 1024} KiB")
    if found:
        return 1
    if arguments[:1] == ["--importer"]:
        python = Path(arguments[1]).absolute() / "bin" / "python"
        variables = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
        command = [str(python), "-m", "galaxy_importer.main", str(archive)]
        return subprocess.run(command, cwd=BUILD, env=variables, check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
