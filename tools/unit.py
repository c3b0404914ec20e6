# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit tests, on the oldest supported ansible-core and on the newest that this machine runs."""

from __future__ import annotations

import subprocess
import sys

import cores


def main(arguments: list[str]) -> int:
    """Run pytest in each environment; the arguments go to it as they are. The worst exit status comes back."""
    newest = cores.newest()
    if newest is None:
        print(cores.no_newest())
    worst = 0
    for environment in (cores.floor(), newest):
        if environment is None:
            continue
        print(f"{environment}:", flush=True)
        command = [
            str(environment.folder / "bin" / "python"),
            "-m",
            "pytest",
            "--quiet",
            *(arguments or ["tests/unit"]),
        ]
        worst = max(worst, subprocess.run(command, cwd=cores.ROOT, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
