# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit tests, on the oldest and the newest ansible-core that this machine has, or on the one of CORE=2.19."""

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
    """Run pytest in all environments at once, with these arguments; returns the worst exit status."""
    environments = cores.chosen()
    worst = 0
    with ThreadPoolExecutor() as pool:
        outcomes = pool.map(lambda environment: run(environment, arguments), environments)
        for environment, (code, output) in zip(environments, outcomes):
            print(f"{environment}:\n{output}", flush=True)
            worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
