# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a pull, and the small file that reports it.

Private to gpufleet.llamacpp; may change at any time.

The action plugins run a module as a job on the managed node and read this file meanwhile. It is in a folder of the user
that the module runs as, beside the files that Ansible keeps for the job. It has numbers and the name of a file, and no
address.
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

INTERVAL = 1.0  # s between two writes of the same phase
# The action plugins set these environment variables for their modules: the path of the progress file; and whether to
# return DEFERRED instead of a download or a build, so that the action plugin can run the module again as a job.
FILE = "GPUFLEET_LLAMACPP_PROGRESS"
DEFER = "GPUFLEET_LLAMACPP_DEFER"
DEFERRED = {"changed": False, "deferred": True}
# No control node waits for a job that ended this long ago: plugin_utils/_progress.py gives up earlier. No job runs
# longer than LONGEST_SECONDS.
ABANDONED_SECONDS = 600
LONGEST_SECONDS = 30 * 86400


@dataclass(frozen=True)
class Progress:
    """``bytes`` of ``total`` are fetched (phase "download") or hashed ("verify"); an earlier fetch left ``resumed``.

    ``rate``: bytes per second over the last seconds.
    """

    bytes: int
    total: int
    resumed: int
    rate: float
    phase: str


class ProgressFile:
    """Reports the progress of a whole set of files in the file ``path``. Without a path it reports nothing.

    The file is a JSON object in one line: ``pid`` of the process, ``name`` of the current file, its number ``file`` of
    ``files``, ``phase`` ("look", "download", "verify", "copy" or "build"), ``bytes`` of ``total``, of which an earlier
    run left ``resumed``, ``rate`` in bytes per second, ``eta`` in seconds. Unknown values are null. ``bytes``,
    ``total`` and ``resumed`` are those of the whole set; while a file is verified, those of this file.

    It is replaced by rename and not synced: a reader sees a whole object, and after a power cut it is useless anyway.
    It is removed at the end of a with block.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._sizes: dict[str, int | None] = {}  # the set, in the order of the fetches
        self._resumed: dict[str, int] = {}
        self._last: tuple[float, str, str] | None = None  # time, file and phase of the last report

    def expect(self, sizes: Mapping[str, int | None]) -> None:
        """The files of the set in order: the path of each, and its size if known."""
        self._sizes = dict(sizes)

    def learn(self, path: str, size: int, here: bool = False) -> None:
        """The size of a file of the set. ``here``: an earlier run has fetched it."""
        self._sizes[path] = size
        if here:
            self._resumed[path] = size

    def enter(self, phase: str, path: str) -> None:
        """Report a phase that has no numbers."""
        self._report(path, {"phase": phase, **dict.fromkeys(("bytes", "total", "resumed", "rate", "eta"))})

    def fetching(self, path: str) -> Callable[[Progress], None] | None:
        """A progress callback for fetch(), for one file of the set."""
        return (lambda progress: self._count(path, progress)) if self._path else None

    def _count(self, path: str, progress: Progress) -> None:
        self.learn(path, progress.total)
        self._resumed[path] = progress.resumed
        done, total, resumed = progress.bytes, progress.total, progress.resumed
        if progress.phase == "download":
            paths = list(self._sizes)
            before = paths[: paths.index(path)]
            done += sum(self._sizes[one] or 0 for one in before)
            resumed = sum(self._resumed.values())
        sizes = list(self._sizes.values()) if progress.phase == "download" else [total]
        known = [size for size in sizes if size is not None]
        whole = sum(known) if len(known) == len(sizes) else None
        eta = (whole - done) / progress.rate if whole is not None and progress.rate > 0 else None
        numbers = {"bytes": done, "total": whole, "resumed": resumed, "rate": progress.rate, "eta": eta}
        self._report(path, {"phase": progress.phase, **numbers})

    def _report(self, path: str, value: Mapping[str, Any]) -> None:
        now, phase = time.monotonic(), value["phase"]
        if self._path is None:
            return
        if self._last is not None and now - self._last[0] < INTERVAL and self._last[1:] == (path, phase):
            return
        self._last = (now, path, phase)
        paths = list(self._sizes)
        number = paths.index(path) + 1 if path in paths else 1
        which = {"name": os.path.basename(path), "file": number, "files": max(len(paths), 1)}
        temporary = f"{self._path}.{os.getpid()}"
        # A pull does not fail because its progress cannot be written.
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


def begin(target: str) -> ProgressFile:
    """The progress file that the action plugin asks for, if it does. It starts with the phase "look" at ``target``."""
    path = os.path.expanduser(os.environ.get(FILE, ""))
    if path:
        sweep(path)
    progress = ProgressFile(path if path and not is_deferred() else None)
    if path and not is_deferred():
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)  # the job's result has the module's arguments
    progress.enter("look", target)
    return progress


def is_deferred() -> bool:
    """Whether to return DEFERRED instead of a download or a build."""
    return bool(os.environ.get(DEFER))


def sweep(progress_path: str) -> None:
    """Remove the files of abandoned jobs beside ``progress_path``. Raises nothing."""
    folder, now = os.path.dirname(progress_path), time.time()
    with suppress(OSError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            with suppress(OSError):
                age = now - os.stat(path).st_mtime
                if age > (LONGEST_SECONDS if _is_running(path) else ABANDONED_SECONDS):
                    os.unlink(path)


def _is_running(path: str) -> bool:
    """Whether this is the file of an unfinished job, as Ansible's async_wrapper writes it."""
    try:
        with open(path, encoding="utf-8") as file:
            job = json.load(file)
    except ValueError:
        return False
    return isinstance(job, dict) and "started" in job and not job.get("finished")
