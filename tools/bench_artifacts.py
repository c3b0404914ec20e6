# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of artifacts: how fast, and at what cost, files arrive, side by side with what else fetches them.

Usage: bench_artifacts.py [--rounds N] [ROW ...]        rows: plain capped tls again kill

In each round everything that is compared runs in turn; what counts is the median of the rounds' ratios, as the machine
may be busy with other things. Times are of whole processes, their start included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_ground import ROOT, Ground, Spent, python, run

sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.file_record import record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.file import read as read_gguf
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.layout import MODEL_RECORDS
from ansible_collections.gpufleet.llamacpp.tests.lab.hub import Hub
from ansible_collections.gpufleet.llamacpp.tests.lab.hub_store import File
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder

GIB = 1 << 30
LARGE = 2 * GIB
CAPPED = GIB // 2
KILLS = 6
MEMORY = "/dev/shm"

ENGINE = """
import json
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import Source, fetch
url, path, sha256, options = sys.argv[1:]
print(json.dumps(fetch([Source(url)], path, size=None, sha256=sha256, **json.loads(options)).__dict__))
"""
MODULE = """
import importlib, json
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.loads(sys.argv[2])):
    importlib.import_module(sys.argv[1]).main()
"""
# What verification takes by itself: the engine's hash, over as many bytes as LARGE, all of them in memory.
SHA256 = """
import hashlib
state, block = hashlib.sha256(), bytes(1 << 20)
for _ in range(int(sys.argv[1]) >> 20):
    state.update(block)
"""
MODEL_MODULE = "ansible_collections.gpufleet.llamacpp.plugins.modules.gguf_model"


@dataclass(frozen=True)
class Row:
    """A figure and its limit: ``least`` or at ``most``; without one it is the best that the row above can be here."""

    name: str
    ratios: list[float]
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.ratios)

    @property
    def ok(self) -> bool:
        if self.least is not None:
            return self.value >= self.least
        return self.most is None or self.value <= self.most


def engine(ground: Ground, server: str, name: str, **options: object) -> Spent:
    """One fetch with the collection's engine: verified and durable."""
    if server == "tls":
        options["ca_path"] = str(ground.certificate)
    path, url = str(ground.target / name), ground.url(server, name)
    return run(python(ENGINE, url, path, ground.digests[name], json.dumps(options)))


def curl(ground: Ground, server: str, name: str) -> Spent:
    argv: list[str | Path] = ["curl", "-sS", "--fail", "--cacert", ground.certificate, "-o", ground.target / name]
    return run([*argv, ground.url(server, name)])


def sha256() -> Spent:
    return run(python(SHA256, str(LARGE)))


def hf(ground: Ground, name: str, hub: Hub) -> Spent:
    home = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(ground.target / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    program = Path(sys.executable).parent / "hf"
    return run([program, "download", "bench/model", name, "--local-dir", ground.target], {**home, **quiet})


def get_url(ground: Ground, name: str, temporary: Path) -> Spent:
    """The module itself, without the start of Ansible, with Ansible's folder for temporary files on the host."""
    arguments = {
        "url": ground.url("plain", name),
        "dest": str(ground.target / name),
        "checksum": f"sha256:{ground.digests[name]}",
        "timeout": 60,
        "_ansible_remote_tmp": str(temporary),
    }
    return run(python(MODULE, "ansible.modules.get_url", json.dumps(arguments)))


class NginxHub(Hub):
    """The lab's hub with nginx for its CDN."""

    def __init__(self, cdn_url: str) -> None:
        super().__init__()
        self._cdn_url = cdn_url

    def sign(self, name: str, file: File) -> str:
        return self._cdn_url


def in_turn(ground: Ground, rounds: int, runs: dict[str, Callable[[], Spent]]) -> dict[str, list[Spent]]:
    """Each of ``runs`` once a round, into an empty folder."""
    spent: dict[str, list[Spent]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, call in runs.items():
            ground.clear()
            spent[name].append(call())
        words = ", ".join(f"{name} {spent[name][-1].seconds:.2f} s" for name in runs)
        print(f"  round {turn + 1} of {rounds}: {words}", flush=True)
    ground.clear()
    return spent


def faster(spent: dict[str, list[Spent]], other: str) -> tuple[list[float], str]:
    """How many times as fast as ``other`` the engine was in each round, and both medians."""
    pairs = [(ours.seconds, theirs.seconds) for ours, theirs in zip(spent["engine"], spent[other])]
    ours, theirs = (statistics.median(column) for column in zip(*pairs))
    return [second / first for first, second in pairs], f"{ours:.2f} s, {theirs:.2f} s"


def plain(ground: Ground, rounds: int) -> list[Row]:
    """2 GiB over loopback: the engine, curl, hf download and get_url with a checksum.

    get_url brings a file to the home of the user first, and models have a disk of their own. So here its first stop is
    another file system, the fastest there is: memory. Once more with both on one file system, for comparison.
    """
    name = ground.file(LARGE)
    with NginxHub(ground.url("plain", name)) as hub, tempfile.TemporaryDirectory(dir=MEMORY) as elsewhere:
        hub.repo("bench/model").commit({name: ground.folder / "files" / name})
        spent = in_turn(
            ground,
            rounds,
            {
                "engine": lambda: engine(ground, "plain", name),
                "curl": lambda: curl(ground, "plain", name),
                "hf": lambda: hf(ground, name, hub),
                "get_url": lambda: get_url(ground, name, Path(elsewhere)),
                "get_url here": lambda: get_url(ground, name, ground.target / "temporary"),
                "sha256": sha256,
            },
        )
    limits: dict[str, tuple[str, float | None]] = {
        "curl": ("as fast as curl (unverified)", 1.0),
        "hf": ("as fast as hf download (unverified)", 2.0),
        "get_url": ("as fast as get_url with checksum", 6.0),
        "get_url here": ("as fast as get_url, one file system", None),
    }
    rows = []
    for other, (words, least) in limits.items():
        ratios, note = faster(spent, other)
        rows.append(Row(f"2 GiB, times {words}", ratios, least=least, note=note))
        alone = [theirs.seconds / ours.seconds for ours, theirs in zip(spent["sha256"], spent[other])]
        rows.append(Row("  the sha256 of these bytes, alone", alone))
    return rows


def capped(ground: Ground, rounds: int) -> list[Row]:
    """A line that gives 40 MiB/s to each connection: the engine and aria2c, 16 connections each."""
    name = ground.file(CAPPED)
    aria2c: list[str | Path] = ["aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=falloc", "-d", ground.target]
    spent = in_turn(
        ground,
        rounds,
        {
            "engine": lambda: engine(ground, "capped", name, connections=16),
            "aria2c": lambda: run([*aria2c, ground.url("capped", name)]),
        },
    )
    ratios, note = faster(spent, "aria2c")
    return [Row("512 MiB, capped line, times as fast as aria2c -x16", ratios, least=1.0, note=note)]


def tls(ground: Ground, rounds: int) -> list[Row]:
    """2 GiB over TLS 1.3: processor seconds of the engine and of curl."""
    name = ground.file(LARGE)
    runs = {"engine": lambda: engine(ground, "tls", name), "curl": lambda: curl(ground, "tls", name)}
    spent = in_turn(ground, rounds, {**runs, "sha256": sha256})
    per_gb = {one: [each.processor / LARGE * 1e9 for each in spent[one]] for one in spent}
    ratios = [ours / theirs for ours, theirs in zip(per_gb["engine"], per_gb["curl"])]
    note = ", ".join(f"{statistics.median(per_gb[one]):.2f}" for one in runs) + " s/GB"
    least = [(sha + theirs) / theirs for sha, theirs in zip(per_gb["sha256"], per_gb["curl"])]
    return [
        Row("2 GiB over TLS, CPU seconds, times those of curl", ratios, most=1.7, note=note),
        Row("  curl and the sha256 of these bytes together", least),
    ]


def again(ground: Ground, rounds: int) -> list[Row]:
    """gguf_model for a model that is there: 18 GB against 100 MB, each a sparse file with a matching record."""
    ground.clear()
    calls = {}
    for size in (18_000_000_000, 100_000_000):
        path = ground.target / f"{size}.gguf"
        width = size // 4 // 1000 * 1000
        tensors = [gguf_builder.tensor("one", [1000, width // 1000], 0, 0)]
        path.write_bytes(gguf_builder.padded(gguf_builder.header(gguf_builder.LLAMA, tensors)))
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + width * 4)
        read_gguf(str(path))
        arguments = json.dumps({"path": str(path), "sha256": ["0" * 64]})
        time.sleep(2.5)  # a record is believed when the file was at rest for 2 s
        record(str(path), MODEL_RECORDS, "0" * 64, {})
        calls[size] = python(MODULE, MODEL_MODULE, arguments)
    times: dict[int, list[float]] = {size: [] for size in calls}
    for _turn in range(4 * rounds):
        for size, argv in calls.items():
            spent = run(argv)
            times[size].append(spent.seconds)
            if '"changed": false' not in spent.output:
                sys.exit(f"bench: a re-run was no re-run: {spent.output[-500:]}")
    ground.clear()
    large, small = times.values()
    note = ", ".join(f"{statistics.median(one):.3f} s" for one in (large, small))
    ratio = statistics.median(large) / statistics.median(small)
    return [Row("re-run for 18 GB, times that for 100 MB", [ratio], most=1.1, note=note)]


def _kill(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> bool:
    """Kill a pull ``seconds`` after its first claim of bytes on the disk; False if it ended before."""
    journal = f"*.journal.*.{process.pid}"
    first = 0
    while process.poll() is None:
        size = max((path.stat().st_size for path in folder.glob(f".{journal}")), default=0)
        first = first or size
        if size > first:
            break
        time.sleep(0.005)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def kill(ground: Ground, rounds: int) -> list[Row]:
    """kill -9 at random moments of a 2 GiB pull: bytes sent beyond its size, per kill, as part of the size."""
    name = ground.file(LARGE)
    dice = random.Random()
    ratios = []
    for _turn in range(rounds):
        ground.clear()
        before, kills = ground.sent(), 0
        argv = python(ENGINE, ground.url("counted", name), str(ground.target / name), ground.digests[name], "{}")
        while not (ground.target / name).exists():
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
            if kills < KILLS:
                kills += _kill(process, ground.target, dice.uniform(0.0, 1.0))
            elif process.wait():
                sys.exit("bench: a killed pull could not be resumed")
        if kills:
            ratios.append((ground.sent() - before - LARGE) / LARGE / kills)
        print(f"  {kills} kills, {ratios[-1] if ratios else 0:.3f} of the size each", flush=True)
    ground.clear()
    return [Row("2 GiB, sent again per kill -9, part of its size", ratios, most=0.03)]


ROWS = {one.__name__: one for one in (plain, capped, tls, again, kill)}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast, and at what cost, files arrive.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all where none is given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", type=Path, help="fetch into a folder on another file system than this checkout's")
    given = parser.parse_args()
    wrong = sorted(set(given.rows) - set(ROWS))
    if wrong:
        parser.error(f"there is no {', '.join(wrong)}; rows are {', '.join(ROWS)}")
    found: list[Row] = []
    with Ground(ROOT / ".build/bench", given.target) as ground:
        for name in given.rows or ROWS:
            print(str(ROWS[name].__doc__).strip(), flush=True)
            found += ROWS[name](ground, given.rounds)
    print(table(found, given.rounds))


def table(rows: list[Row], rounds: int) -> str:
    """All figures, at most 80 columns wide."""
    lines = [f"{rounds} rounds in turn, {os.cpu_count()} cores, {platform.machine()}"]
    lines.append(f"{'':54} {'median':>6}  {'limit':>7}")
    for row in rows:
        if row.least is None and row.most is None:
            lines.append(f"{row.name:54.54} {row.value:6.3f}")
            continue
        limit = f">= {row.least:g}" if row.least is not None else f"<= {row.most:g}"
        lines.append(f"{row.name:54.54} {row.value:6.3f}  {limit:>7}  {'ok' if row.ok else 'NOT'}")
        spread = f"{min(row.ratios):.3f} to {max(row.ratios):.3f}" if len(row.ratios) > 1 else ""
        lines.append("    " + "; ".join(filter(None, [row.note, spread])))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
