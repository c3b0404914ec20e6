# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of deployments: hosts by instances, against a playbook of builtin modules that does the same.

Both run in turn, in one run, on hosts of the lab that are booted for it; what counts is the ratio of the medians. The
smaller sizes are parts of the largest: fewer hosts by --limit, fewer instances by what is declared.
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
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
OURS, PLAIN = "gpufleet.llamacpp", "builtin modules"
RUNS = {OURS: "playbooks/deploy.yml", PLAIN: "bench/deploy_builtin.yml"}
SIZES = ((1, 1), (1, 4), (8, 1), (8, 4))  # hosts x instances
ROUNDS = 3
NO_CHANGE, FOUR_TO_ONE = 0.5, 2.0  # limits
ENVIRONMENT = {**os.environ, "LAB": "bench", "ANSIBLE_FORCE_COLOR": "0"}
# Both as root over ssh: the yardstick has no way to keep a server without it.
ARGUMENTS = ["-i", "inventory/lab", "-e", "ansible_user=root"]
# How the ssh connection says with -vvv that it runs a command on a host, or brings a file there.
TRIP = re.compile(r"^<[\d.]+> (?:SSH: EXEC|PUT) ", re.MULTILINE)
MODEL = {
    "path": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def lab(*words: str) -> None:
    subprocess.run([ROOT / "tests/lab/lab", *words], check=True, env=ENVIRONMENT)


def instances(count: int, temperature: float) -> list[dict[str, Any]]:
    """So many small instances, which fit on a host beside those of the yardstick."""
    return [
        {
            "name": f"bench-{number}",
            "port": 4601 + number,
            "model": {**MODEL, "url": "{{ lab_model_url }}"},
            "gpus": [number],
            "gpu_layers": 99,
            "context_size": 512,
            "threads": 1,
            "host": "127.0.0.1",
            "args": ["--jinja", "--fit on", f"--temp {temperature}"],
            "gate": "health",  # the yardstick looks at no more
        }
        for number in range(count)
    ]


def deploy(name: str, hosts: int, count: int, *words: str, temperature: float = 1.0) -> tuple[float, str]:
    """Run a playbook; returns its seconds, and what it said. Ends the benchmark if it fails."""
    limit = ",".join(f"gpu{number + 1}" for number in range(hosts))
    extra = {
        "llamacpp_instances": instances(count, temperature),
        "llamacpp_instance_defaults": {},
        "llamacpp_instance_overrides": {},
        "llamacpp_rollout": {"canary": 0, "batch": "100%"},
        "plain_count": count,
        "plain_temperature": temperature,
    }
    argv = [str(PLAYBOOK), *ARGUMENTS, "--limit", limit, "-e", json.dumps(extra), *words, RUNS[name]]
    begin = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if done.returncode:
        sys.exit(f"bench: {RUNS[name]} failed:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return seconds, done.stdout


def changed(output: str) -> int:
    """How many tasks changed something, over all hosts."""
    return sum(map(int, re.findall(r"\bok=\d+\s+changed=(\d+)", output)))


def no_change(hosts: int, count: int) -> dict[str, Any]:
    """Deploy again what is there, in turn; seconds of each round, and trips to a host."""
    times: dict[str, list[float]] = {name: [] for name in RUNS}
    for _turn in range(ROUNDS):
        for name in RUNS:
            seconds, output = deploy(name, hosts, count)
            if changed(output):
                sys.exit(f"bench: a second deploy with {name} changed something, so there is nothing to compare")
            times[name].append(seconds)
    trips = {name: len(TRIP.findall(deploy(name, hosts, count, "-vvv")[1])) // hosts for name in RUNS}
    return {"seconds": times, "trips": trips}


def one_argument() -> dict[str, list[float]]:
    """Another --temp for one instance on one host, in turn; each round is a restart."""
    times: dict[str, list[float]] = {name: [] for name in RUNS}
    for turn in range(ROUNDS):
        for name in RUNS:
            seconds, output = deploy(name, 1, 1, temperature=0.5 if turn % 2 else 0.6)
            if not changed(output):
                sys.exit(f"bench: another argument was no change for {name}")
            times[name].append(seconds)
    return times


def line(what: str, times: dict[str, list[float]], limit: str = "") -> float:
    """Print a row of medians; returns their ratio."""
    median = {name: statistics.median(times[name]) for name in RUNS}
    ratio = median[OURS] / median[PLAIN]
    print(f"{what:28} {median[OURS]:7.2f} s {median[PLAIN]:7.2f} s   {ratio:4.2f} {limit}", flush=True)
    return ratio


def main() -> None:
    lab("up", str(max(hosts for hosts, dummy in SIZES)))
    try:
        measure()
    finally:
        lab("down")


def measure() -> None:
    hosts, count = SIZES[-1]
    for name in RUNS:
        seconds, output = deploy(name, hosts, count)
        print(f"first deploy, {hosts} hosts x {count}, {name}: {seconds:.0f} s, changed={changed(output)}", flush=True)
    where = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"\n{ROUNDS} rounds in turn, medians, {where}; controller and hosts are this one machine")
    print(f"{'':28} {'gpufleet':>9} {'builtin':>9}  ratio")
    found: dict[str, Any] = {}
    for size in SIZES:
        key = "{} x {}".format(*size)
        found[key] = no_change(*size)
        ratio = line(f"no change, {key}", found[key]["seconds"], f"(at most {NO_CHANGE})")
        trips = found[key]["trips"]
        print(f"{'  trips to a host':28} {trips[OURS]:9} {trips[PLAIN]:9}", flush=True)
        found[key]["ratio"] = ratio
    for hosts in sorted({hosts for hosts, dummy in SIZES}):
        one, four = (statistics.median(found[f"{hosts} x {count}"]["seconds"][OURS]) for count in (1, 4))
        print(f"{hosts} x 4 instances, times {hosts} x 1: {four / one:.2f} (less than {FOUR_TO_ONE:.0f})", flush=True)
    found["argument"] = one_argument()
    line("another argument, 1 x 1", found["argument"])
    folder = ROOT / ".build"
    folder.mkdir(exist_ok=True)
    (folder / "bench_deploy.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
