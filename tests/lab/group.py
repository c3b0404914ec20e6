# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: whatever the lab starts runs in one, so it is found and ended whole, and nothing else ever is.

A group is better than a process id: nobody else gets it later, it holds what a dead parent left behind, and a reboot of
the machine ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from state import LabError

KEEPER = Path(__file__).resolve().parent / "keeper.py"


class Group:
    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def folders(self) -> list[Path]:
        """The group in each hierarchy. Looked for when it is needed, so that a machine without any is told in words."""
        return [root / self.name for root in _roots()]

    @staticmethod
    def all(prefix: str) -> list[Group]:
        return [Group(folder.name) for folder in sorted(_roots()[0].glob(f"{prefix}*/"))]

    def wrap(self, argv: Sequence[str | Path]) -> list[str]:
        """The command that runs this one under a keeper in this group."""
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        return [sys.executable, str(KEEPER), ",".join(map(str, self.folders)), *map(str, argv)]

    def start(self, argv: Sequence[str | Path], output: Path, environment: dict[str, str]) -> None:
        """Run a command in this group. It outlives us; its output goes to the file."""
        with output.open("wb") as stream:
            process = subprocess.Popen(
                self.wrap(argv),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **environment},
            )
        while not self.kept():
            if process.poll() is not None:
                raise LabError(f"{argv[0]} ended at once:\n{output.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)

    def kept(self) -> bool:
        """The keeper lives: it alone is in the group itself, what it started is below."""
        return bool(self._keepers())

    def populated(self) -> bool:
        """Anything at all lives in the group."""
        events = self.folders[0] / "cgroup.events"
        return events.exists() and "populated 1" in events.read_text()

    def ask_to_end(self, seconds: float) -> None:
        """Ask the keeper for an orderly end, and wait that long for it."""
        deadline = time.monotonic() + seconds
        for pid in self._keepers():
            os.kill(pid, signal.SIGTERM)
        while self.populated() and time.monotonic() < deadline:
            time.sleep(0.02)

    def kill(self) -> None:
        """End everything in the group now, and remove it."""
        deadline = time.monotonic() + 10
        kill = self.folders[0] / "cgroup.kill"
        if kill.exists():
            kill.write_text("1")
        while left := [path for folder in self.folders for path in _remove(folder)]:
            if time.monotonic() > deadline:
                raise LabError(f"{left[0]}: what is in it does not end after SIGKILL")
            time.sleep(0.01)

    def _keepers(self) -> list[int]:
        procs = self.folders[0] / "cgroup.procs"
        return [int(pid) for pid in procs.read_text().split()] if procs.exists() else []


def _remove(folder: Path) -> list[Path]:
    """Remove a group with all below it; what still has processes is left, and returned."""
    left = []
    for path in [*sorted(folder.rglob("*/"), reverse=True), folder]:
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            left.append(path)
    return left


def _roots() -> list[Path]:
    """Where the unified hierarchy is mounted, and systemd's own of version 1 on a machine that has both."""
    unified, named = [], []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        dummy, point, kind, options = line.split()[:4]
        if kind == "cgroup2":
            unified.append(Path(point))
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            named.append(Path(point))
    if not unified:
        raise LabError("no cgroup2 in /proc/mounts: the hosts' systemd needs the unified control groups")
    return unified[:1] + named[:1]
