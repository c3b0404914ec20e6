# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a fetch is, and the small file that tells it to whoever looks.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.files import remove


@dataclass(frozen=True)
class Progress:
    """``bytes`` of ``total`` are here (phase "download") or hashed ("verify"); ``resumed`` of them were here before
    this fetch.

    ``rate`` is in bytes per second over the last seconds; ``eta`` in seconds, None while there is no rate to tell it
    from.
    """

    bytes: int
    total: int
    resumed: int
    rate: float
    phase: str

    @property
    def eta(self) -> float | None:
        return (self.total - self.bytes) / self.rate if self.rate > 0 else None


def write_progress(path: str, progress: Progress, file: int = 1, files: int = 1) -> None:
    """Replace ``path`` by a JSON object with the fields of ``progress``, ``eta``, and which ``file`` of ``files`` it
    is.

    A reader sees the old object or the new one, whole. It is not synced: after a power cut it is of no use. Raises
    OSError.
    """
    value: dict[str, Any] = {**asdict(progress), "eta": progress.eta, "file": file, "files": files}
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as out:
        json.dump(value, out)
    os.rename(temporary, path)


class ProgressFile:
    """A progress callback for fetch() that keeps ``path`` current, at most once a second, and removes it at the end."""

    def __init__(self, path: str, file: int = 1, files: int = 1) -> None:
        self._path = path
        self._file = file
        self._files = files
        self._written: float | None = None
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._written is not None and now - self._written < 1.0 and progress.phase == self._phase:
            return
        self._written, self._phase = now, progress.phase
        try:
            write_progress(self._path, progress, self._file, self._files)
        except OSError:
            return  # a full disk for a line of progress is no reason to end the fetch

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(self, *dummy: object) -> None:
        for path in (self._path, f"{self._path}.{os.getpid()}"):
            remove(path)
