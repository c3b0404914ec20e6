# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image and the network: what sif_image asks of registries and of the fetch engine.

Private to gpufleet.llamacpp; may change at any time.

Registry and engine are imported where they are used, so that only a run that asks something needs their library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..._fetch.progress import ProgressFile
from ..registry.auth import Credentials
from .plan import ImageError, Remote, SeenImage, Wanted, known_digest

PHASES = {"file": "copy", "docker": "build", "library": "build"}


@dataclass(frozen=True)
class Network:
    """How this host reaches the sources. ``max_rate`` in bytes per second; ``prepare`` is called before any use;
    ``progress`` is told how far it is.
    """

    credentials: Credentials | None = None
    no_https: bool = False
    ca_path: str | None = None
    connections: int = 8
    max_rate: float | None = None
    prepare: Callable[[], object] = lambda: None
    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    progress: ProgressFile = field(default_factory=lambda: ProgressFile(None))

    def resolve(self, wanted: Wanted, seen: SeenImage) -> Remote:
        """What the source says about the image now; one request where its digest is the recorded one.

        Raises FetchError in words.
        """
        self.prepare()
        origin = wanted.origin
        if origin is None or origin.kind not in ("http", "oras", "docker"):
            return Remote()
        if origin.reference is None:
            from ..._fetch import engine

            found = engine.inspect(self._http_source(wanted), ca_path=self.ca_path)
            return Remote(size=found.size, validator=found.validator)
        registry = self._registry(wanted)
        had = known_digest(origin, seen)
        if had:
            digest = registry.digest()
            if digest == had:
                return Remote(digest=digest)
        if origin.kind == "docker":
            digest, size = registry.packed_size()
            return Remote(digest=digest, size=size)
        layer = self.kept["layer"] = registry.sif()
        return Remote(digest=layer.digest, sha256=layer.sha256, size=layer.size)

    def bring(self, wanted: Wanted, remote: Remote, place: str) -> Any:
        """Fetch the image to ``place``; returns fetch.Fetched. Raises FetchError and ImageError."""
        self.prepare()
        from ..._fetch import engine

        if wanted.origin is not None and wanted.origin.kind == "oras":
            registry = self._registry(wanted)
            layer = self.kept.get("layer") or registry.sif()
            source, size, sha256 = registry.source(layer), layer.size, layer.sha256
        else:
            source, size, sha256 = self._http_source(wanted), None, wanted.sha256
        return engine.fetch(
            [source],
            place,
            size=size,
            sha256=sha256,
            shown_path=wanted.path,
            connections=self.connections,
            max_rate=self.max_rate,
            ca_path=self.ca_path,
            progress=self.progress.fetching(wanted.path),
        )

    def announce(self, wanted: Wanted) -> None:
        """Tell the progress of what the engine does not bring: a copy or a build, of which there are no numbers."""
        phase = PHASES.get(wanted.origin.kind if wanted.origin else "")
        if phase:
            self.progress.enter(phase, wanted.path)

    def _registry(self, wanted: Wanted) -> Any:
        from ..registry.registry import Registry

        if "registry" not in self.kept:
            reference = wanted.origin.reference if wanted.origin else None
            if reference is None:
                raise ImageError(f"{wanted.path}: its source is in no registry.")
            self.kept["registry"] = Registry(reference, self.credentials, self.no_https, self.ca_path)
        return self.kept["registry"]

    def _http_source(self, wanted: Wanted) -> Any:
        from ..._fetch.engine import Source

        headers = {"Authorization": self.credentials.basic} if self.credentials else {}
        return Source(wanted.origin.address if wanted.origin else "", headers)


def transfer_of(transfer: Any, seconds: float) -> dict[str, Any]:
    """What came and how long it took, as a module returns it; what Apptainer brings it does not count."""
    keys = ("bytes_fetched", "bytes_resumed", "retries")
    found: dict[str, Any] = {key: getattr(transfer, key, None) for key in keys}
    seconds = getattr(transfer, "seconds", seconds)
    rate = int(found["bytes_fetched"] / seconds) if seconds and found["bytes_fetched"] is not None else None
    return {"transfer": {**found, "seconds": round(seconds, 3), "rate": rate}}
