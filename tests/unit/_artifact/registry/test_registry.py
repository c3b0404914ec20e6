# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries: tags, digests, tokens, refusals, and blobs through the fetch engine; against a server on 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.registry.auth import (
    Credentials,
    credentials_from,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.registry.reference import Reference
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.registry.registry import (
    Registry,
    RegistryError,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import retry
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import FetchError, fetch
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import OperatorError
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import (
    INDEX,
    PASSWORD,
    USER,
    RegistryServer,
    digest,
    sif,
)

GIVEN = Credentials(USER, PASSWORD)
CONTENT = sif()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSE", 0.0)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as found:
        yield found


def registry(
    server: RegistryServer, tag: str = "v1", pin: str | None = None, given: Credentials | None = None
) -> Registry:
    return Registry(Reference(server.host, "gpu/llamacpp", tag, pin), given, no_https=True)


def test_a_tag_costs_one_question_and_a_digest_none(server: RegistryServer) -> None:
    pushed = server.push("v1", CONTENT)
    assert registry(server).digest() == pushed
    assert server.asked() == ["HEAD /v2/gpu/llamacpp/manifests/v1"]
    assert registry(server, pin=pushed).digest() == pushed
    assert server.asked() == []


def test_a_tag_that_moves(server: RegistryServer) -> None:
    first = server.push("v1", CONTENT)
    second = server.push("v1", sif(b"other"))
    assert registry(server).digest() == second != first
    layer = registry(server, pin=first).sif()
    assert (layer.digest, layer.sha256, layer.size) == (first, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def test_a_registry_that_names_no_digest(server: RegistryServer) -> None:
    pushed = server.push("v1", CONTENT)
    server.headers = {"Docker-Content-Digest": ""}
    assert registry(server).digest() == pushed
    assert registry(server).sif().digest == pushed


@pytest.mark.parametrize("pin", [False, True])
def test_a_damaged_manifest(server: RegistryServer, pin: bool) -> None:
    pushed = server.push("v1", CONTENT)
    if pin:
        server.manifests[pushed] = ("", b'{"layers": []}')
    else:
        server.headers = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    with pytest.raises(RegistryError, match="whose digest is sha256:"):
        registry(server, pin=pushed if pin else None).sif()


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"manifests": []}, "must be the manifest of one SIF file"),
        ({"layers": []}, "must be the manifest of one SIF file"),
        (
            {"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}] * 2},
            "is a container image of 2 layer(s), not a SIF file. Use docker://",
        ),
        ({"layers": [{"mediaType": "x/sif"}] * 2}, "holds 2 files"),
        ({"layers": [{"mediaType": "x/sif", "digest": "sha256:1", "size": 5}]}, "gives no sha256 and size"),
        ({"layers": [{"mediaType": "x/sif", "digest": "sha256:" + "a" * 64}]}, "gives no sha256 and size"),
        (["a list"], "not with a manifest"),
    ],
)
def test_what_is_no_sif(server: RegistryServer, manifest: object, words: str) -> None:
    server.put("v1", manifest)
    with pytest.raises(RegistryError) as refused:
        registry(server).sif()
    assert words in str(refused.value)


def test_a_layer_under_another_type(server: RegistryServer) -> None:
    server.push("v1", CONTENT, kind="application/octet-stream")
    assert registry(server).sif().sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(("auth", "given"), [("bearer", None), ("bearer", GIVEN), ("private", GIVEN), ("basic", GIVEN)])
def test_who_asks(tmp_path: Path, auth: str, given: Credentials | None) -> None:
    with RegistryServer(auth) as server:
        server.push("v1", CONTENT)
        found = registry(server, given=given)
        layer = found.sif()
        got = fetch([found.source(layer)], str(tmp_path / "x.sif"), size=layer.size, sha256=layer.sha256)
        assert got.sha256 == layer.sha256
        assert sum(path.startswith("/token") for dummy, path, dummy in server.requests) == (auth != "basic")


@pytest.mark.parametrize(
    ("auth", "given", "words"),
    [
        ("private", None, "has no gpu/llamacpp, or gives it to known users only (HTTP 401)"),
        ("basic", None, "has no gpu/llamacpp, or gives it to known users only (HTTP 401)"),
        ("private", Credentials(USER, "wrong-word"), "does not accept the user robot for gpu/llamacpp (HTTP 401)"),
        ("basic", Credentials(USER, "wrong-word"), "does not accept the user robot for gpu/llamacpp (HTTP 401)"),
    ],
)
def test_who_may_not(auth: str, given: Credentials | None, words: str) -> None:
    with RegistryServer(auth) as server:
        server.push("v1", CONTENT)
        with pytest.raises(RegistryError) as refused:
            registry(server, given=given).sif()
        assert words in str(refused.value)
        assert "wrong-word" not in str(refused.value)
        assert len(server.requests) <= 3


def test_the_password_does_not_go_in_the_clear(server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.auth = "private"
    found = registry(server, given=GIVEN)
    monkeypatch.setattr(found._client, "_scheme", "https")
    monkeypatch.setattr(found._client, "url", lambda path: f"http://{server.host}/v2/gpu/llamacpp/{path}")
    with pytest.raises(RegistryError, match="which is no https address"):
        found.digest()
    assert [path for dummy, path, given in server.requests if given] == []


def test_a_registry_that_is_busy(server: RegistryServer) -> None:
    pushed = server.push("v1", CONTENT)
    server.fail = [503, 429, 500]
    assert registry(server).digest() == pushed
    server.fail = [500] * 9
    with pytest.raises(RegistryError, match="does not answer: HTTP 500"):
        registry(server).digest()


def test_no_registry_listens() -> None:
    with RegistryServer() as server:
        host = server.host
    with pytest.raises(RegistryError, match=r"does not answer: .*refused"):
        Registry(Reference(host, "gpu/llamacpp", "v1", None), no_https=True).digest()


def test_no_such_image(server: RegistryServer) -> None:
    with pytest.raises(RegistryError) as refused:
        registry(server).sif()
    assert str(refused.value) == (
        f"src: {server.host} has no gpu/llamacpp with v1 (HTTP 404) (the registry says: manifest unknown). Check src."
    )


def test_a_store_elsewhere_gets_no_token(tmp_path: Path) -> None:
    with RegistryServer("bearer", store=True) as server:
        server.push("v1", CONTENT)
        found = registry(server)
        layer = found.sif()
        source = found.source(layer)
        # The token and the signature expire before the first byte is asked.
        server.token, server.signature = "token-number-2", "signed2"
        got = fetch([source], str(tmp_path / "x.sif"), size=layer.size, sha256=layer.sha256)
        assert (tmp_path / "x.sif").read_bytes() == CONTENT
        assert got.url.endswith(f"/v2/gpu/llamacpp/blobs/{digest(CONTENT)}")
        assert {given for dummy, given in server.stored} == {""}


def test_a_damaged_blob_is_refused(tmp_path: Path, server: RegistryServer) -> None:
    server.push("v1", CONTENT)
    server.blobs[digest(CONTENT)] = CONTENT[:-1] + b"?"
    found = registry(server)
    layer = found.sif()
    with pytest.raises(FetchError, match="was discarded"):
        fetch([found.source(layer)], str(tmp_path / "x.sif"), size=layer.size, sha256=layer.sha256)
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_a_container_image(server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    inner = server.put("amd64", {"layers": [{"size": 5}, {"size": 7}]})
    other = server.put("arm64", {"layers": [{"size": 100}]})
    entries = [
        {"digest": other, "platform": {"os": "linux", "architecture": "arm64"}},
        {"digest": inner, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    index = server.put("v1", {"manifests": entries}, INDEX)
    assert registry(server).packed_size() == (index, 12)
    assert registry(server, "amd64").packed_size() == (inner, 12)
    server.put("v1", {"manifests": entries[:1]}, INDEX)
    with pytest.raises(RegistryError, match="has no image for linux/amd64; it has linux/arm64"):
        registry(server).packed_size()


def test_the_hub_has_a_server_of_another_name() -> None:
    found = Registry(Reference("docker.io", "library/alpine", "3", None))
    assert found._client.url("manifests/3") == "https://registry-1.docker.io/v2/library/alpine/manifests/3"


# Who asks, out of a file


def auths(tmp_path: Path, content: object) -> str:
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_credentials_of_docker_login(tmp_path: Path) -> None:
    entry = {"auth": base64.b64encode(b"robot:a:b").decode()}
    path = auths(tmp_path, {"auths": {"ghcr.io": entry, "https://index.docker.io/v1/": entry}})
    assert credentials_from(path, "ghcr.io", "auth_file") == Credentials("robot", "a:b")
    assert credentials_from(path, "docker.io", "auth_file") == Credentials("robot", "a:b")
    assert credentials_from(path, "quay.io", "auth_file") is None
    path = auths(tmp_path, {"auths": {"ghcr.io": {"username": "u", "password": "p"}}})
    assert credentials_from(path, "ghcr.io", "auth_file") == Credentials("u", "p")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{secret", "is not valid JSON"),
        ("[]", 'has no "auths"'),
        ({"auths": {"ghcr.io": {}}, "credsStore": "pass"}, "(the helper pass keeps it, and helpers are not asked)"),
        ({"auths": {"ghcr.io": {"auth": "?"}}}, "names ghcr.io but has no user and password for it."),
    ],
)
def test_files_that_are_of_no_use(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(OperatorError, match="^auth_file: ") as refused:
        credentials_from(auths(tmp_path, content), "ghcr.io", "auth_file")
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="^image_auth_file: .* is not there on the host"):
        credentials_from(str(tmp_path / "no"), "ghcr.io", "image_auth_file")


def test_a_password_is_never_shown() -> None:
    assert PASSWORD not in repr(GIVEN)
