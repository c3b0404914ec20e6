# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit tests, on the oldest supported ansible-core and on the newest that this machine runs."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cores


def run(environment: cores.Environment, arguments: list[str]) -> tuple[int, str]:
    """Run pytest in one environment; its exit status, and what it said."""
    python = str(environment.folder / "bin" / "python")
    command = [python, "-m", "pytest", "--quiet", *(arguments or ["tests/unit"])]
    done = subprocess.run(
        command, cwd=cores.ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def main(arguments: list[str]) -> int:
    """Run pytest in both environments at once; the arguments go to it as they are. The worst exit status comes back."""
    newest = cores.newest()
    if newest is None:
        print(cores.no_newest())
    environments = [environment for environment in (cores.floor(), newest) if environment]
    worst = 0
    with ThreadPoolExecutor() as pool:
        outcomes = pool.map(lambda environment: run(environment, arguments), environments)
        for environment, (code, output) in zip(environments, outcomes):
            print(f"{environment}:\n{output}", flush=True)
            worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
