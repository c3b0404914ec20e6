# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a pull is, and the small file that tells it to whoever looks.

Private to gpufleet.llamacpp; may change at any time.

The action plugins run a module as a job on the host and look at this file meanwhile. It lies in a folder of the user
that the module runs as, together with what Ansible keeps of the job. It has numbers and the name of a file, and nothing
of where that comes from.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .._host.files import remove

EVERY = 1.0  # s between two writes of the same phase
# What the action plugins say to their modules, in environment variables: the file to tell the progress in; and whether
# to return DEFERRED instead of bringing something, so that the action plugin can run the module again as a job.
FILE = "GPUFLEET_LLAMACPP_PROGRESS"
DEFER = "GPUFLEET_LLAMACPP_DEFER"
DEFERRED = {"changed": False, "deferred": True}
# Nobody waits any more for a job that ended so long ago (plugin_utils/_progress.py gives up earlier), and no job runs
# so long.
ABANDONED_SECONDS = 600
LONGEST_SECONDS = 30 * 86400


@dataclass(frozen=True)
class Progress:
    """``bytes`` of ``total`` are here (phase "download") or hashed ("verify"); ``resumed`` of them were here before
    this fetch.

    ``rate`` is in bytes per second over the last seconds.
    """

    bytes: int
    total: int
    resumed: int
    rate: float
    phase: str


class ProgressFile:
    """Tells in the file ``path`` how far a whole set of files is. Without a path nobody asked, and nothing is told.

    The file is a JSON object in one line: ``pid`` of who works, ``name`` of the file it works at, that this is ``file``
    of ``files``, ``phase`` ("look", "download", "verify", "copy" or "build"), ``bytes`` of ``total`` and those of them
    ``resumed``, ``rate`` in bytes per second, ``eta`` in seconds. What is not known is null. ``bytes``, ``total`` and
    ``resumed`` are of the whole set; while one file is verified, of that one.

    It is renamed to its place and not synced: a reader sees the old object or the new one, whole; after a power cut it
    is of no use. It is removed at the end of a with block.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._sizes: dict[str, int | None] = {}  # the set, in the order in which it is brought
        self._resumed: dict[str, int] = {}
        self._told: tuple[float, str, str] | None = None  # when, of which file, in which phase

    def expect(self, sizes: Mapping[str, int | None]) -> None:
        """The set that is to be brought, in order: each file's place, and its size where that is known."""
        self._sizes = dict(sizes)

    def learn(self, place: str, size: int, here: bool = False) -> None:
        """The size of a file of the set; ``here``: an earlier run brought it."""
        self._sizes[place] = size
        if here:
            self._resumed[place] = size

    def enter(self, phase: str, place: str) -> None:
        """Tell a phase that has no numbers."""
        self._tell(place, {"phase": phase, **dict.fromkeys(("bytes", "total", "resumed", "rate", "eta"))})

    def fetching(self, place: str) -> Callable[[Progress], None] | None:
        """A progress callback for fetch(), for one file of the set."""
        return (lambda progress: self._count(place, progress)) if self._path else None

    def _count(self, place: str, progress: Progress) -> None:
        self.learn(place, progress.total)
        self._resumed[place] = progress.resumed
        done, total, resumed = progress.bytes, progress.total, progress.resumed
        if progress.phase == "download":
            places = list(self._sizes)
            before = places[: places.index(place)]
            done += sum(self._sizes[one] or 0 for one in before)
            resumed = sum(self._resumed.values())
        sizes = list(self._sizes.values()) if progress.phase == "download" else [total]
        known = [size for size in sizes if size is not None]
        whole = sum(known) if len(known) == len(sizes) else None
        eta = (whole - done) / progress.rate if whole is not None and progress.rate > 0 else None
        numbers = {"bytes": done, "total": whole, "resumed": resumed, "rate": progress.rate, "eta": eta}
        self._tell(place, {"phase": progress.phase, **numbers})

    def _tell(self, place: str, value: Mapping[str, Any]) -> None:
        now, phase = time.monotonic(), value["phase"]
        if self._path is None:
            return
        if self._told is not None and now - self._told[0] < EVERY and self._told[1:] == (place, phase):
            return
        self._told = (now, place, phase)
        places = list(self._sizes)
        number = places.index(place) + 1 if place in places else 1
        which = {"name": os.path.basename(place), "file": number, "files": max(len(places), 1)}
        temporary = f"{self._path}.{os.getpid()}"
        # A full disk for a line of progress is no reason to end the pull.
        with suppress(OSError):
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump({"pid": os.getpid(), **which, **value}, out)
                out.write("\n")
            os.rename(temporary, self._path)

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(self, *dummy: object) -> None:
        for path in (self._path, f"{self._path}.{os.getpid()}") if self._path else ():
            with suppress(OSError):
                remove(path)


def begin(place: str) -> ProgressFile:
    """The file that the action plugin asks for, if one does, first of all with the phase "look" at ``place``."""
    path = os.path.expanduser(os.environ.get(FILE, ""))
    if path:
        sweep(path)
    progress = ProgressFile(path if path and not is_deferred() else None)
    if path and not is_deferred():
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)  # the job's result has the module's arguments
    progress.enter("look", place)
    return progress


def is_deferred() -> bool:
    """Whether nothing is to be brought now; return DEFERRED instead."""
    return bool(os.environ.get(DEFER))


def sweep(progress_path: str) -> None:
    """Remove what jobs left beside ``progress_path`` that nobody waited for to the end. Raises nothing."""
    folder, now = os.path.dirname(progress_path), time.time()
    with suppress(OSError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            with suppress(OSError):
                age = now - os.stat(path).st_mtime
                if age > (LONGEST_SECONDS if _is_running(path) else ABANDONED_SECONDS):
                    os.unlink(path)


def _is_running(path: str) -> bool:
    """Whether this is the file of a job that has not said that it ended, as Ansible's async_wrapper writes it."""
    try:
        with open(path, encoding="utf-8") as file:
            job = json.load(file)
    except ValueError:
        return False
    return isinstance(job, dict) and "started" in job and not job.get("finished")
