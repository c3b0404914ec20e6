# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI registry: what a tag means, what a manifest holds, and where the engine fetches a blob.

Private to gpufleet.llamacpp; may change at any time.

The protocol is that of the OCI distribution specification 1.1; how a token is had, that of the Docker registry.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..._fetch.source import Source
from ..image.sources import Reference
from .auth import Credentials
from .client import RegistryClient, RegistryError

__all__ = ["Layer", "Registry", "RegistryError"]

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ACCEPT = ", ".join([*MANIFESTS, *INDEXES])
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
# What Go, and so every registry, calls the machines that GPUs are in.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le"}
MANIFEST_MAX = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Layer:
    """The SIF of an artifact: the manifest's digest (sha256:...), the file's sha256 (64 hex) and its size in bytes."""

    digest: str
    sha256: str
    size: int


class Registry:
    """What the registry says about one reference. Raises RegistryError, a FetchError in words.

    ``no_https``: the registry speaks plain HTTP. ``ca_path``: certificates that it is trusted by.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        no_https: bool = False,
        ca_path: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._reference = reference
        self._client = RegistryClient(reference, credentials, no_https, ca_path, timeout)

    @property
    def asked(self) -> int:
        """The number of requests so far."""
        return self._client.asked

    def digest(self) -> str:
        """The digest of the manifest that the reference means now; where it names one, without a request."""
        if self._reference.digest:
            return self._reference.digest
        response = self._client.ask("HEAD", f"manifests/{self._reference.wanted}", ACCEPT)
        digest = response.headers.get("Docker-Content-Digest", "").strip()
        # A registry may leave the header out; the content tells it too.
        return digest if _DIGEST.fullmatch(digest) else self._manifest(self._reference.wanted)[0]

    def sif(self) -> Layer:
        """The SIF that the reference means, its manifest proven by its digest."""
        digest, manifest = self._manifest(self._reference.wanted)
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            raise RegistryError(
                f"oras://{self._reference} is an index or something else without layers; it must be the manifest of "
                "one SIF file, as apptainer push makes it."
            )
        sifs = [layer for layer in layers if isinstance(layer, dict) and layer.get("mediaType") == SIF_LAYER]
        # Other tools push a file under a type of their own; whether it is a SIF its first bytes tell later.
        chosen = sifs or [layer for layer in layers if isinstance(layer, dict) and not _is_rootfs(layer)]
        if not chosen:
            raise RegistryError(
                f"oras://{self._reference} is a container image of {len(layers)} layer(s), not a SIF file. Use "
                f"docker://{self._reference} to have Apptainer convert it."
            )
        if len(chosen) > 1:
            raise RegistryError(f"oras://{self._reference} holds {len(chosen)} files, and an image is one SIF file.")
        named, size = str(chosen[0].get("digest")), chosen[0].get("size")
        if not _DIGEST.fullmatch(named) or not isinstance(size, int) or size <= 0:
            raise RegistryError(f"oras://{self._reference}: its manifest gives no sha256 and size of the SIF file.")
        return Layer(digest, named.partition(":")[2], size)

    def packed_size(self) -> tuple[str, int]:
        """The manifest's digest, and the bytes of all layers of the container image for this machine, compressed."""
        digest, manifest = self._manifest(self._reference.wanted)
        entries = manifest.get("manifests")
        if isinstance(entries, list):
            machine = MACHINES.get(platform.machine(), platform.machine())
            found = [one for one in entries if isinstance(one, dict) and _machine(one) == ("linux", machine)]
            if not found or not _DIGEST.fullmatch(str(found[0].get("digest"))):
                have = ", ".join(sorted({"/".join(_machine(one)) for one in entries if isinstance(one, dict)}))
                raise RegistryError(f"docker://{self._reference} has no image for linux/{machine}; it has {have}.")
            manifest = self._manifest(str(found[0]["digest"]))[1]
        layers = manifest.get("layers") or []
        return digest, sum(one["size"] for one in layers if isinstance(one.get("size"), int))

    def source(self, layer: Layer) -> Source:
        """Where the engine fetches the SIF; it has itself a fresh token, or a fresh signature, when one expired."""
        path = f"blobs/sha256:{layer.sha256}"
        return Source(self._client.url(path), self._client.authorization(), self._fresh(path))

    def _fresh(self, path: str) -> Callable[[], tuple[str, Mapping[str, str]]]:
        def fresh() -> tuple[str, Mapping[str, str]]:
            self._client.forget()
            self._client.ask("HEAD", path, "*/*", follow=False)
            return self._client.url(path), self._client.authorization()

        return fresh

    def _manifest(self, wanted: str) -> tuple[str, dict[str, Any]]:
        """A manifest and its digest, which is that of the bytes that came."""
        response = self._client.ask("GET", f"manifests/{wanted}", ACCEPT)
        body = response.content
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        said = response.headers.get("Docker-Content-Digest", "").strip()
        expected = wanted if _DIGEST.fullmatch(wanted) else said if _DIGEST.fullmatch(said) else digest
        if digest != expected:
            raise RegistryError(
                f"{self._reference.host} gave a manifest of {self._reference} whose digest is {digest}, not {expected}"
                ". The registry, or what stands before it, damages it."
            )
        try:
            manifest = json.loads(body) if len(body) <= MANIFEST_MAX else None
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict):
            kind = response.headers.get("Content-Type", "nothing that says its type")
            raise RegistryError(
                f"{self._reference.host} answered with {kind} and not with a manifest of {self._reference}: it is no "
                "registry, or a login page stands before it."
            )
        return digest, manifest


def _is_rootfs(layer: Mapping[str, Any]) -> bool:
    kind = str(layer.get("mediaType"))
    return "rootfs" in kind or kind.startswith("application/vnd.oci.image.layer.")


def _machine(entry: Mapping[str, Any]) -> tuple[str, str]:
    found = entry.get("platform")
    found = found if isinstance(found, dict) else {}
    return str(found.get("os")), str(found.get("architecture"))
