# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of staged files with the fetch engine.

Private to gpufleet.llamacpp; may change at any time.

The engine is imported where it is used, so that only a run that downloads something needs its library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._fetch.progress import ProgressFile
from .option_checks import rate_of
from .staging import Staged


@dataclass(frozen=True)
class Downloads:
    """How files are downloaded. ``max_rate`` in bytes per second; ``ca_path``: the certificates to trust."""

    connections: int = 8
    max_rate: float | None = None
    ca_path: str | None = None
    progress: ProgressFile = field(default_factory=lambda: ProgressFile(None))

    def fetch(self, sources: Sequence[Any], place: str, shown: str, *, size: int | None, sha256: str | None) -> Staged:
        """Download one file from engine.Sources to ``place``; problems and progress call it ``shown``.

        Raises FetchError.
        """
        from .._fetch import engine

        got = engine.fetch(
            sources,
            place,
            size=size,
            sha256=sha256,
            shown_path=shown,
            connections=self.connections,
            max_rate=self.max_rate,
            ca_path=self.ca_path,
            progress=self.progress.fetching(shown),
        )
        return Staged(place, got.sha256, got.seconds, got)

    def inspect(self, source: Any, size: int | None = None) -> Any:
        """What the server says about the file of an engine.Source. Raises FetchError."""
        from .._fetch import engine

        return engine.inspect(source, size=size, ca_path=self.ca_path)


def downloads_of(params: Mapping[str, Any], progress: ProgressFile) -> Downloads:
    """The options of a module, in which option_checks.check() found no problem."""
    return Downloads(params["connections"], rate_of(params["max_rate"]), params["ca_path"], progress)
