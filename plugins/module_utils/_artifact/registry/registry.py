# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI registry: the digest of a tag, the layers of a manifest, and the address of a blob for the fetch engine.

Private to gpufleet.llamacpp; may change at any time.

The protocol is that of the OCI distribution specification 1.1; tokens are those of the Docker registry.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..._fetch.source import Source
from ..._result import Problem
from ..option_names import SIF_IMAGE, ImageOptionNames
from ..remote_api import kind_of
from .auth import Credentials
from .client import RegistryClient, RegistryError
from .reference import Reference, is_digest

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
# The names in Go, and so in every registry, of the machines that have GPUs.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le"}
MANIFEST_MAX = 4 << 20


@dataclass(frozen=True)
class Layer:
    """The SIF of an artifact: the manifest's digest (sha256:...), the file's sha256 (64 hex) and its size in bytes."""

    digest: str
    sha256: str
    size: int


class Registry:
    """The manifests and blobs of one reference. Raises RegistryError.

    ``no_https``: the registry speaks plain HTTP. ``ca_path``: the certificates to trust. ``names``: the options that
    the problems name.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        no_https: bool = False,
        ca_path: str | None = None,
        names: ImageOptionNames = SIF_IMAGE,
        timeout: float = 30.0,
    ) -> None:
        self._reference = reference
        self._names = names
        self._client = RegistryClient(reference, credentials, no_https, ca_path, names, timeout)

    @property
    def asked(self) -> int:
        """The number of requests so far."""
        return self._client.asked

    def digest(self) -> str:
        """The digest of the manifest now; without a request if the reference has one."""
        if self._reference.digest:
            return self._reference.digest
        response = self._client.ask("HEAD", f"manifests/{self._reference.wanted}", ACCEPT)
        digest = response.headers.get("Docker-Content-Digest", "").strip()
        # A registry may leave the header out; then the digest is computed from the content.
        return digest if is_digest(digest) else self._manifest(self._reference.wanted)[0]

    def sif(self) -> Layer:
        """The SIF of the reference, its manifest verified by its digest."""
        digest, manifest = self._manifest(self._reference.wanted)
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            raise self._refused(
                f"oras://{self._reference} is an index, or something else without layers",
                "It must be the manifest of one SIF file, as apptainer push makes it.",
            )
        sifs = [layer for layer in layers if isinstance(layer, dict) and layer.get("mediaType") == SIF_LAYER]
        # Other tools push a file under types of their own; its first bytes are checked later.
        chosen = sifs or [layer for layer in layers if isinstance(layer, dict) and not _is_rootfs(layer)]
        if not chosen:
            raise self._refused(
                f"oras://{self._reference} is a container image of {len(layers)} layer(s), not a SIF file",
                f"Use docker://{self._reference} to have Apptainer convert it.",
            )
        again = "Push the SIF file again with apptainer push."
        if len(chosen) > 1:
            raise self._refused(f"oras://{self._reference} holds {len(chosen)} files, and an image is one", again)
        named, size = str(chosen[0].get("digest")), chosen[0].get("size")
        if not is_digest(named) or not isinstance(size, int) or size <= 0:
            raise self._refused(f"the manifest of oras://{self._reference} gives no sha256 and size of the file", again)
        return Layer(digest, named.partition(":")[2], size)

    def packed_size(self) -> tuple[str, int]:
        """The manifest's digest, and the compressed bytes of all layers of the container image for this machine."""
        digest, manifest = self._manifest(self._reference.wanted)
        entries = manifest.get("manifests")
        if isinstance(entries, list):
            machine = MACHINES.get(platform.machine(), platform.machine())
            found = [one for one in entries if isinstance(one, dict) and _machine(one) == ("linux", machine)]
            if not found or not is_digest(str(found[0].get("digest"))):
                have = ", ".join(sorted({"/".join(_machine(one)) for one in entries if isinstance(one, dict)}))
                text = f"docker://{self._reference} has no image for linux/{machine}; it has {have}"
                raise self._refused(text, f"Name an image for linux/{machine}.")
            manifest = self._manifest(str(found[0]["digest"]))[1]
        layers = manifest.get("layers") or []
        return digest, sum(one["size"] for one in layers if isinstance(one.get("size"), int))

    def source(self, layer: Layer) -> Source:
        """The source for the fetch engine. It gets a new token or signature when the one it has expires."""
        path = f"blobs/sha256:{layer.sha256}"
        return Source(self._client.url(path), self._client.authorization(), self._fresh(path))

    def _fresh(self, path: str) -> Callable[[], tuple[str, Mapping[str, str]]]:
        def fresh() -> tuple[str, Mapping[str, str]]:
            self._client.forget()
            self._client.ask("HEAD", path, "*/*", follow=False)
            return self._client.url(path), self._client.authorization()

        return fresh

    def _manifest(self, wanted: str) -> tuple[str, dict[str, Any]]:
        """A manifest and its digest, computed from the bytes that arrived."""
        response = self._client.ask("GET", f"manifests/{wanted}", ACCEPT)
        body = response.content
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        said = response.headers.get("Docker-Content-Digest", "").strip()
        expected = wanted if is_digest(wanted) else said if is_digest(said) else digest
        if digest != expected:
            raise self._refused(
                f"{self._reference.host} gave a manifest of {self._reference} whose digest is {digest}, not {expected}",
                "The registry, or a proxy in front of it, damages it.",
            )
        try:
            manifest = json.loads(body) if len(body) <= MANIFEST_MAX else None
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict):
            raise self._refused(
                f"{self._reference.host} answered with {kind_of(response)}, not with a manifest of {self._reference}",
                f"It is no registry, or a login page is in front of it. Check {self._names.src} and the proxy.",
            )
        return digest, manifest

    def _refused(self, text: str, remedy: str) -> RegistryError:
        return RegistryError(Problem(self._names.src, text, remedy))


def _is_rootfs(layer: Mapping[str, Any]) -> bool:
    kind = str(layer.get("mediaType"))
    return "rootfs" in kind or kind.startswith("application/vnd.oci.image.layer.")


def _machine(entry: Mapping[str, Any]) -> tuple[str, str]:
    found = entry.get("platform")
    found = found if isinstance(found, dict) else {}
    return str(found.get("os")), str(found.get("architecture"))
