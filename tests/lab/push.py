# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put images into an OCI registry, by the requests of its specification and nobody's tool: a SIF file as Apptainer
pushes it, and a small container image for Apptainer to convert.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sif(registry: str, repository: str, tag: str, path: Path) -> str:
    """The manifest's digest. ``registry`` is the address of one that asks for no password."""
    config = _blob(registry, repository, b"{}", SIF_CONFIG)
    layer = _blob(registry, repository, path.read_bytes(), SIF_LAYER)
    layer["annotations"] = {"org.opencontainers.image.title": path.name}
    return _manifest(registry, repository, tag, config, layer)


def container(registry: str, repository: str, tag: str, files: Mapping[str, bytes], labels: Mapping[str, str]) -> str:
    """A container image that has these files, all executable; the manifest's digest."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    plain = tar.getvalue()
    layer = _blob(registry, repository, gzip.compress(plain, mtime=0), LAYER)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": dict(labels)},
        "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
    }
    return _manifest(registry, repository, tag, _blob(registry, repository, json.dumps(config).encode(), CONFIG), layer)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(registry: str, repository: str, content: bytes, kind: str) -> dict[str, object]:
    begun = _send("POST", f"{registry}/v2/{repository}/blobs/uploads/", b"")
    place = urljoin(registry, begun["Location"])
    place += ("&" if "?" in place else "?") + f"digest={_digest(content)}"
    _send("PUT", place, content, "application/octet-stream")
    return {"mediaType": kind, "digest": _digest(content), "size": len(content)}


def _manifest(registry: str, repository: str, tag: str, config: dict[str, object], layer: dict[str, object]) -> str:
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).encode()
    _send("PUT", f"{registry}/v2/{repository}/manifests/{tag}", body, MANIFEST)
    return _digest(body)


def _send(method: str, url: str, body: bytes, kind: str = "") -> Mapping[str, str]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, body, {"Content-Type": kind} if kind else {}, method=method)
    with direct.open(request, timeout=30) as response:
        return response.headers
