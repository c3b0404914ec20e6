# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The path of an instance's image, by its address and its digest."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import naming
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources import source_of
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import HOME

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("/srv/x.sif", "/srv/x.sif"),
        ("shared/x.sif", "/h/shared/x.sif"),
        ("x.sif", "/h/x.sif"),
        ("~/x.sif", "/home/me/x.sif"),
        ("oras://r.io/x:v1", "oras://r.io/x:v1"),
    ],
)
def test_paths(image: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert naming.path_of(image, HOME) == path


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://u:p@files.example.org/a/llamacpp.sif?token=x#y", "llamacpp-abababababab.sif"),
        ("https://files.example.org?file=x.sif", "image-abababababab.sif"),
        ("oras://localhost:5000/gpu/llamacpp:v1", "llamacpp-abababababab.sif"),
        (f"oras://localhost:5000/gpu/llamacpp@sha256:{DIGEST}", "llamacpp-abababababab.sif"),
        ("docker://ghcr.io/ggml-org/llama.cpp:server-cuda", "llama.cpp-abababababab.sif"),
        ("library://me/gpu/llamacpp:v1", "llamacpp-abababababab.sif"),
    ],
)
def test_what_comes_from_an_address_has_its_digest_in_its_name(address: str, name: str) -> None:
    for digest in (DIGEST, f"sha256:{DIGEST}"):
        assert naming.place(HOME, source_of(address, "image"), digest) == f"/h/shared/{name}"


def test_a_library_image_is_named_by_its_address() -> None:
    address = "library://me/gpu/llamacpp:v1"
    named = hashlib.sha256(address.encode()).hexdigest()[:12]
    assert naming.place(HOME, source_of(address, "image"), None) == f"/h/shared/llamacpp-{named}.sif"
