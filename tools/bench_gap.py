# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of a change: how long nobody is answered, against a bare stop and start of the same llama-server.

A client on a host of the lab asks for one token again and again, and tells the time from the last answer of the old
server to the first of the new one. In turn, the server is changed by deploy-4403.yml, and the very same command is
started, ended by TERM and started again by a program of a few lines. Before that, a client that streams one answer
after the other runs through ten changes, and every answer is counted.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ROUNDS = 7
CHANGES = 10
LIMIT = 1.15
FOLDER = "llamacpp/4403-glm-4.7-flash-q4"
ENVIRONMENT = {**os.environ, "LAB": "bench"}

# Ends with the gap in seconds as its last line; the line before says that the first answer is there.
CLIENT = """
    import http.client, json, time

    def answered():
        line = http.client.HTTPConnection("127.0.0.1", 4403, timeout=30)
        try:
            body = json.dumps({"prompt": "Hello", "n_predict": 1})
            line.request("POST", "/completion", body, {"Content-Type": "application/json"})
            return line.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            line.close()

    def client(tell):
        last, missed = None, False
        while True:
            good, now = answered(), time.monotonic()
            if good and last is None:
                tell()
            if good and missed:
                return now - last
            missed = missed or (last is not None and not good)
            last = now if good else last
            time.sleep(0.002)
"""
STREAM = """
    import collections, os

    def stream():
        line = http.client.HTTPConnection("127.0.0.1", 4403, timeout=30)
        taken = whole = False
        try:
            body = json.dumps({"prompt": "Once upon a time", "n_predict": 48, "ignore_eos": True, "stream": True})
            line.request("POST", "/completion", body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            taken = answer.status == 200
            if not taken:
                return "not taken: HTTP %d" % answer.status
            for raw in answer:
                if raw.startswith(b"data: "):
                    whole = whole or json.loads(raw[6:])["stop"]
        except (OSError, http.client.HTTPException) as error:
            if not taken:
                return "not taken: " + type(error).__name__
        finally:
            line.close()
        return "whole" if whole else "cut short"

    counts = collections.Counter()
    while not os.path.exists("/tmp/bench-stop"):
        outcome = stream()
        counts[outcome] += 1
        if counts["whole"] == 1 and outcome == "whole":
            print("serving", flush=True)
        if outcome != "whole":
            time.sleep(0.01)
    os.remove("/tmp/bench-stop")
    print(json.dumps(counts))
"""
WATCH = """
    print(client(lambda: print("serving", flush=True)))
"""
BARE = """
    import os, signal, subprocess, threading

    launch = json.load(open(os.path.expanduser("~/FOLDER/instance.json")))["launch"]

    def start():
        quiet = subprocess.DEVNULL
        return subprocess.Popen(launch["argv"], env=launch["env"], stdin=quiet, stdout=quiet, stderr=quiet)

    server, serving, found = start(), threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(client(serving.set)))
    thread.start()
    serving.wait()
    time.sleep(1)
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGTERM)
        server.wait()
    server = start()
    thread.join()
    server.send_signal(signal.SIGTERM)
    server.wait()
    print(found[0])
"""


def on_host(program: str) -> subprocess.Popen[str]:
    """Begin a Python program on the host, as the operator."""
    command = [str(ROOT / "tests/lab/lab"), "ssh", "gpu1", "python3", "-"]
    running = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdin
    running.stdin.write(textwrap.dedent(CLIENT) + textwrap.dedent(program).replace("FOLDER", FOLDER))
    running.stdin.close()
    return running


def told(running: subprocess.Popen[str]) -> str:
    """What the program found, its last line, once it has ended."""
    assert running.stdout
    lines = running.stdout.read().splitlines()
    if running.wait() or not lines:
        sys.exit("bench: the client on the host failed, see above")
    return lines[-1]


def deploy(context_size: int) -> None:
    """Another size of the context is a restart."""
    variables = yaml.safe_load((ROOT / "inventory/lab/group_vars/lab.yml").read_text())
    overrides = variables["llamacpp_instance_overrides"]
    overrides["4403-glm-4.7-flash-q4"]["context_size"] = context_size
    extra = json.dumps({"llamacpp_instance_overrides": overrides})
    argv = [str(PLAYBOOK), "-i", "inventory/lab", "-e", extra, "playbooks/deploy-4403.yml"]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: the deploy failed:\n{done.stdout[-3000:]}")


def main() -> None:
    subprocess.run([ROOT / "tests/lab/lab", "up", "1"], check=True, env=ENVIRONMENT)
    try:
        measure()
    finally:
        subprocess.run([ROOT / "tests/lab/lab", "down"], check=True, env=ENVIRONMENT)


def count_answers() -> dict[str, int]:
    """What became of each answer that a streaming client asked for in the course of the changes."""
    client = on_host(STREAM)
    assert client.stdout
    client.stdout.readline()
    for turn in range(CHANGES):
        deploy(2048 if turn % 2 else 3072)
    subprocess.run(
        [str(ROOT / "tests/lab/lab"), "ssh", "gpu1", "touch", "/tmp/bench-stop"], check=True, env=ENVIRONMENT
    )
    counts: dict[str, int] = json.loads(told(client))
    return counts


def measure() -> None:
    deploy(4096)
    counts = count_answers()
    print(f"a streaming client through {CHANGES} changes: {counts}", flush=True)
    deploy(4096)
    ours: list[float] = []
    bare: list[float] = []
    for turn in range(ROUNDS):
        client = on_host(WATCH)
        assert client.stdout
        client.stdout.readline()
        deploy(2048 if turn % 2 else 3072)
        ours.append(float(told(client)))
        script = [str(ROOT / "tests/lab/lab"), "ssh", "gpu1", f"{FOLDER}/run.sh"]
        subprocess.run([*script, "stop"], check=True, env=ENVIRONMENT, capture_output=True)
        bare.append(float(told(on_host(BARE))))
        subprocess.run([*script, "start"], check=True, env=ENVIRONMENT, capture_output=True)
        print(f"round {turn + 1} of {ROUNDS}: {ours[-1]:.2f} s, bare {bare[-1]:.2f} s", flush=True)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"\nfrom the last answer to the first, {ROUNDS} rounds in turn, {os.cpu_count()} cores, {platform.machine()}")
    for name, times in (("by a deploy", ours), ("bare", bare)):
        print(f"{name:12} {statistics.median(times):5.2f} s  {min(times):.2f}-{max(times):.2f} s")
    print(f"ratio {ratio:.2f} (at most {LIMIT})")
    folder = ROOT / ".build"
    folder.mkdir(exist_ok=True)
    (folder / "bench_gap.json").write_text(
        json.dumps({"answers": counts, "ratio": ratio, "deploy": ours, "bare": bare}, indent=2)
    )


if __name__ == "__main__":
    main()
