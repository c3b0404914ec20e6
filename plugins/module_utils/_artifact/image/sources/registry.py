# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources of images have in common that are in an OCI registry: a reference, and the registry that is asked.

Private to gpufleet.llamacpp; may change at any time.

The registry is imported where it is used, so that only a run that asks it needs its library.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ...registry.reference import Reference
from .source import ImageAccess, ImageSource


@dataclass(frozen=True)
class RegistryImage(ImageSource):
    """``made`` keeps the registry's client and what it answered, for this source and the pinned one."""

    reference: Reference
    made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def pin(self) -> str | None:
        return self.reference.digest

    @property
    def registry_host(self) -> str | None:
        return self.reference.host

    @property
    def file_name(self) -> tuple[str, str]:
        return self.reference.repository.rpartition("/")[2], ".sif"

    def pinned(self, digest: str | None) -> RegistryImage:
        return replace(self, reference=replace(self.reference, digest=digest)) if digest else self

    def registry(self, access: ImageAccess) -> Any:
        """The registry.Registry of the reference."""
        access.ready()
        if "registry" not in self.made:
            from ...registry.registry import Registry

            ca_path = access.downloads.ca_path
            self.made["registry"] = Registry(self.reference, access.credentials, access.no_https, ca_path, access.names)
        return self.made["registry"]
