# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a lab keeps what it knows: its folders and its record; and the few small tools that every other file uses."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
WORK = REPO / ".lab"
CACHE = WORK / "cache"


class LabError(Exception):
    """Something is wrong that the user can act on; the message says what and how."""


@dataclass
class Lab:
    """One lab: its name, its run-time folder, and the record of what it made there."""

    name: str
    run: Path
    record: dict = field(default_factory=dict)

    @classmethod
    def open(cls) -> Lab:
        name = os.environ.get("LAB") or digest(str(REPO))[:6]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
            raise LabError(f"LAB={name!r}: a lab's name is 1 to 32 letters, digits, '-' and '_'")
        lab = cls(name, WORK / "run" / name)
        lab.load()
        return lab

    def load(self) -> None:
        try:
            self.record = json.loads((self.run / "lab.json").read_text())
        except FileNotFoundError:
            self.record = {}

    @property
    def id(self) -> str:
        """Prefix of everything this lab makes outside its folder; short, for an interface's name has 15 characters."""
        return "lab" + digest(str(self.run))[:6]

    @property
    def key(self) -> Path:
        return self.run / "id_ed25519"

    @property
    def host_key(self) -> Path:
        return self.run / "ssh_host_ed25519_key"

    def save(self) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        replace_file(self.run / "lab.json", json.dumps(self.record, indent=2) + "\n")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One command at a time changes this lab."""
        with exclusive(WORK / "run" / f"{self.name}.lock", f"another command is at work on lab {self.name}"):
            self.load()
            yield


@contextlib.contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{busy}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.rename(path)


def say(text: str) -> None:
    # In one write, for builds speak from several threads.
    sys.stdout.write(f"lab: {text}\n")
    sys.stdout.flush()


def run(*argv: str | Path, check: bool = True, **keywords: object) -> subprocess.CompletedProcess[str]:
    """A short command, silent unless it fails."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **keywords)  # type: ignore[call-overload]
    if check and done.returncode:
        raise LabError(f"{' '.join(words)} failed with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def run_long(what: str, argv: Sequence[str | Path], log: Path) -> None:
    """A command that may take a while: its output goes to a log, a line every ten seconds says where it is."""
    begin = spoken = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - spoken > 10:
                    spoken = time.monotonic()
                    say(f"{what}: {spoken - begin:.0f} s, {last_line(log)[:80]}")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"{what} failed with {process.returncode}; {log} ends:\n{tail}")


def last_line(log: Path) -> str:
    lines = re.split(r"[\r\n]+", log.read_text(errors="replace").strip())
    return lines[-1].strip()


def mount_overlay(name: str, layers: Sequence[Path], folder: Path) -> None:
    """Mount folder/root: the layers, the topmost first, and above them folder/upper, which takes what is written."""
    for part in ("upper", "work", "root"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    # Relative to .lab: the checkout's path may hold a comma or a colon, which mean something in mount options.
    places = {"lowerdir": layers, "upperdir": [folder / "upper"], "workdir": [folder / "work"]}
    options = ",".join(
        f"{option}={':'.join(str(path.relative_to(WORK)) for path in paths)}" for option, paths in places.items()
    )
    run("mount", "-t", "overlay", name, "-o", options, folder / "root", cwd=WORK)


def mounts_under(folder: Path) -> list[str]:
    """Mount points at or below the folder, the deepest first."""
    folder = folder.resolve()  # the cache may be a link to that of another checkout
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [point.replace("\\040", " ") for point in points]
    return [point for point in reversed(points) if point == str(folder) or point.startswith(f"{folder}/")]


def remove_tree(folder: Path) -> None:
    """Remove a folder of the lab's, after whatever is still mounted in it."""
    for point in mounts_under(folder):
        run("umount", "--lazy", point)
    if folder.exists():
        shutil.rmtree(folder)
