# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark: a deploy that changes nothing, against a playbook of builtin modules that does the same.

Both run in turn, in one run, on a host of the lab that is booted for it; what counts is the ratio of the medians.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ROUNDS = 7
OURS, PLAIN = "gpufleet.llamacpp", "builtin modules"
RUNS = {OURS: "playbooks/deploy-4403.yml", PLAIN: "bench/deploy_builtin.yml"}
TARGET = 0.5
ENVIRONMENT = {**os.environ, "LAB": "bench"}
# Both as root over ssh: the yardstick has no way to keep a server without it.
ARGUMENTS = ["-i", "inventory/lab", "-e", "ansible_user=root"]


def lab(*words: str) -> None:
    subprocess.run([ROOT / "tests/lab/lab", *words], check=True, env=ENVIRONMENT)


def deploy(playbook: str) -> tuple[float, int, int]:
    """Run a playbook: seconds, tasks that ran on the host, and what changed. Ends the benchmark if it fails."""
    begin = time.monotonic()
    argv = [str(PLAYBOOK), *ARGUMENTS, playbook]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    recap = re.search(r"ok=(\d+)\s+changed=(\d+)", done.stdout)
    if done.returncode or not recap:
        sys.exit(f"bench: {playbook} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, int(recap[1]), int(recap[2])


def main() -> None:
    lab("up", "1")
    try:
        measure()
    finally:
        lab("down")


def measure() -> None:
    for name, playbook in RUNS.items():
        seconds, dummy, changed = deploy(playbook)
        print(f"first deploy, {name}: {seconds:.1f} s, changed={changed}", flush=True)
    times: dict[str, list[float]] = {name: [] for name in RUNS}
    tasks = dict.fromkeys(RUNS, 0)
    for turn in range(ROUNDS):
        for name, playbook in RUNS.items():
            seconds, tasks[name], changed = deploy(playbook)
            if changed:
                sys.exit(f"bench: a second deploy with {name} changed something, so there is nothing to compare")
            times[name].append(seconds)
        print(
            f"round {turn + 1} of {ROUNDS}: " + ", ".join(f"{name} {times[name][-1]:.2f} s" for name in RUNS),
            flush=True,
        )
    median = {name: statistics.median(times[name]) for name in RUNS}
    ratio = median[OURS] / median[PLAIN]
    where = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"\nno-change deploy, 1 host x 1 instance, {ROUNDS} rounds in turn, {where}")
    print(f"{'':18}  {'median':>8}  {'min-max':>13}  tasks")
    for name in RUNS:
        low, high = min(times[name]), max(times[name])
        print(f"{name:18}  {median[name]:6.2f} s  {low:5.2f}-{high:5.2f} s  {tasks[name]:5}")
    print(f"ratio {ratio:.2f} (target: at most {TARGET})")
    folder = ROOT / ".build"
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps({"ratio": ratio, "seconds": times, "tasks": tasks}, indent=2))


if __name__ == "__main__":
    main()
