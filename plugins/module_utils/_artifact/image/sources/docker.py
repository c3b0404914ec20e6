# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container image in an OCI registry, which Apptainer converts (docker).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...._result import Problem
from ...option_names import ImageOptionNames
from ...registry.reference import DOCKER_HUB, parse
from ...seen_file import SeenFile
from .apptainer import ApptainerImage
from .registry import RegistryImage
from .source import ImageAccess, ImageFetch, PublishedImage


@dataclass(frozen=True)
class DockerImage(ApptainerImage, RegistryImage):
    """Each conversion gives another file, so the digest of the manifest identifies the image."""

    schemes = ("docker",)
    is_built = True

    @classmethod
    def parse(cls, scheme: str, address: str, option: str) -> DockerImage:
        """The source of an address. Raises OperatorError about ``option``."""
        reference = parse(scheme, address.partition("://")[2], option, default_host=DOCKER_HUB)
        return cls(address, f"{scheme}://{reference}", reference)

    def problems(self, sha256: str | None, pull: str, names: ImageOptionNames) -> list[Problem]:
        if not sha256:
            return []
        text = f"it cannot be given with {self.shown}, as Apptainer builds another file of the same image each time"
        remedy = "Give the image by its digest: docker://registry/name@sha256:<digest>."
        return [Problem(names.sha256, text, remedy)]

    def identify(self, seen: SeenFile, access: ImageAccess) -> PublishedImage:
        """One request where the digest is the one that the file is known to be from."""
        registry, known = self.registry(access), self.known_digest(seen)
        if known and registry.digest() == known:
            return PublishedImage(digest=known)
        digest, size = registry.packed_size()
        return PublishedImage(digest=digest, size=size)

    def pulled_address(self, job: ImageFetch) -> str:
        # By digest, so that the image is the one that was identified, whatever becomes of the tag.
        return f"docker://{replace(self.reference, digest=job.published.digest or self.pin)}"
