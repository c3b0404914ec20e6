# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's files and the fetch engine: what model_apply asks of the network.

Private to gpufleet.llamacpp; may change at any time.

The engine is imported where it is used, so that only a run that fetches needs its library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._fetch.part_file import content_id
from ..._fetch.progress import ProgressFile
from ..._fetch.reserve import Need, remaining
from ..file_record import recorded
from ..staging import incoming_path
from .plan import RECORDS
from .spec import WantedFile


@dataclass(frozen=True)
class Network:
    """How files are fetched. ``max_rate`` in bytes per second; ``hub`` returns the hub.Hub that the model is of;
    ``progress`` is told how far each file is.
    """

    connections: int = 8
    max_rate: int | None = None
    ca_path: str | None = None
    hub: Callable[[], Any] | None = None
    progress: ProgressFile = field(default_factory=lambda: ProgressFile(None))

    def bring(self, file: WantedFile, path: str) -> Any:
        """Fetch one file to ``path``; returns fetch.Fetched. Raises FetchError."""
        from ..._fetch import engine

        mirrors = [engine.Source(mirror) for mirror in file.mirrors]
        return engine.fetch(
            [self._source(file), *mirrors],
            path,
            size=file.size,
            sha256=file.sha256,
            shown_path=file.path,
            connections=self.connections,
            max_rate=self.max_rate,
            ca_path=self.ca_path,
            progress=self.progress.fetching(file.path),
        )

    def needs(self, file: WantedFile, path: str) -> Need:
        """What fetching the file to ``path`` takes of the disk. Raises FetchError."""
        from ..._fetch import engine

        if file.size is not None and file.sha256:
            return Need(path, file.size, content_id(file.sha256, None), file.path)
        remote = engine.inspect(self._source(file), size=file.size, ca_path=self.ca_path)
        self.progress.learn(file.path, remote.size)
        return Need(path, remote.size, content_id(file.sha256, remote.validator), file.path)

    def _source(self, file: WantedFile) -> Any:
        from ..._fetch.engine import Source

        if self.hub is not None and file.hub is not None and file.commit:
            return self.hub().source(file.hub.repo, file.commit, file.hub.file, file.sha256)
        return Source(str(file.url))


def kept(file: WantedFile, path: str) -> str | None:
    """The sha256 of a part that an earlier run fetched whole to ``path``, if it is the wanted one."""
    found = recorded(path, RECORDS)
    return found.sha256 if found and found.sha256 == file.sha256 else None


def foreseen_need(file: WantedFile) -> int:
    """The bytes of disk that fetching a file of known size will still take."""
    path = incoming_path(file.path, RECORDS)
    if file.size is None or kept(file, path):
        return 0
    return remaining(Need(path, file.size, content_id(file.sha256, None) if file.sha256 else None))


def transfer_of(transfers: Sequence[Any]) -> dict[str, Any]:
    """What came over the network, summed over the files, as a module returns it; empty where nothing did."""
    if not transfers:
        return {}
    keys = ("bytes_fetched", "bytes_resumed", "bytes_from_mirrors", "retries", "seconds")
    total: dict[str, Any] = {key: sum(getattr(one, key) for one in transfers) for key in keys}
    total["rate"] = int(total["bytes_fetched"] / total["seconds"]) if total["seconds"] else 0
    return {"transfer": total}
