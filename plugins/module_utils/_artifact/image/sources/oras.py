# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that is a SIF file in an OCI registry (oras).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...registry.reference import parse
from ...seen_file import SeenFile
from ...staging import Staged, discarded_on_failure
from .registry import RegistryImage
from .source import ImageAccess, ImageFetch, PublishedImage


@dataclass(frozen=True)
class OrasImage(RegistryImage):
    """The digest of the layer is the sha256 of the file."""

    schemes = ("oras",)

    @classmethod
    def parse(cls, scheme: str, address: str, option: str) -> OrasImage:
        """The source of an address. Raises OperatorError about ``option``."""
        reference = parse(scheme, address.partition("://")[2], option)
        return cls(address, f"{scheme}://{reference}", reference)

    def identify(self, seen: SeenFile, access: ImageAccess) -> PublishedImage:
        """One request where the digest is the one that the file is known to be from."""
        registry, known = self.registry(access), self.known_digest(seen)
        if known and registry.digest() == known:
            return PublishedImage(digest=known)
        layer = self.made["layer"] = registry.sif()
        return PublishedImage(digest=layer.digest, sha256=layer.sha256, size=layer.size)

    @contextmanager
    def fetch(self, job: ImageFetch) -> Iterator[Staged]:
        registry, downloads = self.registry(job.access), job.access.downloads
        layer = self.made.get("layer") or registry.sif()
        with discarded_on_failure(
            downloads.fetch([registry.source(layer)], job.place, job.path, size=layer.size, sha256=layer.sha256)
        ) as staged:
            yield staged
