# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance's image: a registry on 127.0.0.1, real files, and a container runtime that is none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import file_record, seen_file
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import resolve as images
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import sif
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.inspect import ImageReading
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources.source import ImageAccess
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.option_names import LLAMACPP_INSTANCE
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.layout import IMAGE_RECORDS
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import FakeRuntime
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import (
    PASSWORD,
    USER,
    RegistryServer,
    digest,
)
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import sif as sif_of

ONE, TWO = sif_of(b"one"), sif_of(b"two")
PROGRAM = "/usr/bin/apptainer"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Host:
    """A home, and the facts about the image in the record of an instance there."""

    def __init__(self, folder: Path, server: RegistryServer) -> None:
        self.home = folder
        self.server = server
        self.run = FakeRuntime()
        self.last: dict[str, Any] = {}
        self.readings: dict[str, ImageReading] = {}

    def address(self, tag: str = "v1", scheme: str = "oras") -> str:
        return f"{scheme}://{self.server.host}/gpu/llamacpp{tag if tag.startswith('@') else ':' + tag}"

    def locate(self, address: str, may_ask: bool = True, **options: Any) -> tuple[images.Image, ImageAccess]:
        access = ImageAccess(
            self.run,
            lambda: may_ask,
            no_https=True,
            names=LLAMACPP_INSTANCE,
            remember=self.readings.__setitem__,
        )
        values: dict[str, Any] = {"sha256": None, "pull": "missing", **options}
        values.update(home=str(self.home), last=self.last, access=access)
        return images.locate(images.ImageRequest(image=address, **values)), access

    def deploy(self, address: str, **options: Any) -> images.Image:
        """What a deployment does: have the image there, learn what it is, and record that."""
        found, access = self.locate(address, **options)
        assert found.problems == ()
        brought = images.bring(found, access)
        self.last = self.facts(brought)
        return found

    def facts(self, found: images.Image) -> dict[str, Any]:
        facts, missing, problems = images.facts(found, None, self.run, PROGRAM, self.last, self.readings.__setitem__)
        assert (missing, problems) == ([], [])
        assert facts
        return json.loads(json.dumps(facts))

    @property
    def files(self) -> list[str]:
        return sorted(name for name in os.listdir(self.home / "shared") if not name.startswith("."))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(runtime, "find", lambda: PROGRAM)
    with RegistryServer() as server:
        yield Host(tmp_path, server)


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(path: str) -> str:
        raise AssertionError(f"{path} was read")

    for module in (file_record, seen_file):
        monkeypatch.setattr(module, "hash_file", reads)
    monkeypatch.setattr(sif, "problem", reads)


def test_a_tag_is_asked_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = host.server.push("v1", ONE)
    first = host.deploy(host.address())
    path = f"{host.home}/shared/llamacpp-{sha256(ONE)[:12]}.sif"
    assert [action.what for action in first.actions] == [
        f"Create the folder {host.home}/shared",
        f"Pull {host.address()} to {path}",
    ]
    assert {key: value for key, value in host.last.items() if key not in ("stamp", "options_digest")} == {
        "path": path,
        "sha256": sha256(ONE),
        "server_path": "/app/llama-server",
        "build": "6123 (abcdef)",
        "source": host.address(),
        "digest": pushed,
    }
    # Learned once, by sif_image's code, and kept in the image's record.
    assert host.run.verbs == ["inspect", "/bin/sh"]
    assert host.readings[sha256(ONE)].build == "6123 (abcdef)"
    host.server.asked()
    host.server.push("v1", TWO)
    no_reading(monkeypatch)
    again = host.deploy(host.address(), may_ask=False)
    assert (again.path, again.actions, again.digest) == (path, [], pushed)
    assert (host.server.asked(), host.run.verbs) == ([], [])


def test_a_tag_that_is_followed_leaves_the_last_image_there(host: Host) -> None:
    host.server.push("v1", ONE)
    before = host.deploy(host.address(), pull="always").path
    host.server.asked()
    assert host.deploy(host.address(), pull="always").actions == []
    assert host.server.asked() == ["HEAD /v2/gpu/llamacpp/manifests/v1"]
    moved = host.server.push("v1", TWO)
    previewed, dummy = host.locate(host.address(), pull="always")
    assert (previewed.comes, previewed.digest, os.path.exists(previewed.path)) == (True, moved, False)
    assert host.facts(previewed) == {
        "path": previewed.path,
        "stamp": None,
        "sha256": sha256(TWO),
        "server_path": "/app/llama-server",
        "build": None,
        "options_digest": None,
        "source": host.address(),
        "digest": moved,
    }
    done = host.deploy(host.address(), pull="always")
    assert (done.path, done.actions) == (previewed.path, previewed.actions)
    assert Path(before).read_bytes() == ONE
    # And back: that image is still there, so nothing is fetched.
    host.server.push("v1", ONE)
    host.server.asked()
    assert (host.deploy(host.address(), pull="always").path, host.server.asked()[0][:4]) == (before, "HEAD")
    assert host.last["sha256"] == sha256(ONE)


@pytest.mark.parametrize("scheme", ["oras", "docker"])
def test_a_digest_means_one_image(host: Host, scheme: str) -> None:
    host.run.pulls = ONE
    pushed = host.server.push("v1", ONE)
    pinned = host.address(f"@{pushed}", scheme)
    first = host.deploy(pinned, pull="always")
    assert first.digest == host.last["digest"] == pushed
    host.server.asked()
    assert host.deploy(pinned, pull="always").actions == []
    host.last = {}
    # Another instance of the same home finds it too.
    assert host.deploy(pinned).actions == []
    assert host.server.asked() == []


def test_another_instance_finds_what_a_tag_came_to(host: Host) -> None:
    host.server.push("v1", ONE)
    host.deploy(host.address())
    host.last = {}
    host.server.asked()
    assert host.deploy(host.address(), pull="never").actions == []
    assert host.server.asked() == []


def test_a_file_that_is_no_longer_what_its_name_says_is_brought_again(host: Host) -> None:
    host.server.push("v1", ONE)
    path = Path(host.deploy(host.address()).path)
    path.write_bytes(TWO)
    again = host.deploy(host.address())
    assert again.comes
    assert again.path == str(path)
    assert path.read_bytes() == ONE


def test_docker_is_built_once_for_each_manifest(host: Host) -> None:
    pushed = host.server.push("v1", b"a layer")
    host.run.pulls = ONE
    first = host.deploy(host.address(scheme="docker"), pull="always")
    assert host.files == [f"llamacpp-{pushed[7:19]}.sif"]
    assert (first.sha256, host.last["sha256"], host.last["digest"]) == (None, sha256(ONE), pushed)
    host.run.pulls = TWO
    host.run.asked.clear()
    assert host.deploy(host.address(scheme="docker"), pull="always").actions == []
    # Another tag of the same manifest means the same file, and an instance with the first tag does not change.
    host.server.push("v2", b"a layer")
    mine, host.last = host.last, {}
    assert host.deploy(host.address("v2", "docker")).actions == []
    host.last = mine
    host.server.asked()
    assert host.deploy(host.address(scheme="docker")).actions == []
    assert (host.server.asked(), host.run.verbs) == ([], [])
    host.server.push("v1", b"another layer")
    host.deploy(host.address(scheme="docker"), pull="always")
    assert len(host.files) == 2
    assert host.last["sha256"] == sha256(TWO)


def test_http_by_its_sha256(host: Host) -> None:
    host.server.blobs["x.sif"] = ONE
    address = f"http://{host.server.host}/v2/gpu/llamacpp/blobs/x.sif"
    host.deploy(address, sha256=sha256(ONE))
    assert host.files == [f"x-{sha256(ONE)[:12]}.sif"]
    host.server.asked()
    assert host.deploy(address, sha256=sha256(ONE), pull="always").actions == []
    assert host.server.asked() == []


def test_a_library_image(host: Host) -> None:
    host.run.pulls = ONE
    found = host.deploy("library://me/gpu/llamacpp:v1")
    assert host.deploy("library://me/gpu/llamacpp:v1").actions == []
    assert host.last["source"] == "library://me/gpu/llamacpp:v1"
    assert host.deploy("library://me/gpu/llamacpp:v1", sha256=sha256(ONE)).path != found.path


def test_a_pinned_file_of_a_tag(host: Host) -> None:
    host.server.push("v1", ONE)
    refused, dummy = host.locate(host.address(), sha256=sha256(TWO))
    (problem,) = refused.problems
    assert problem.option == "image_sha256"
    assert problem.text.startswith(f"{host.address()} is sha256:")
    assert sha256(TWO) in problem.text
    host.deploy(host.address(), sha256=sha256(ONE), pull="always")
    host.server.asked()
    assert host.deploy(host.address(), sha256=sha256(ONE), pull="always").actions == []
    assert host.server.asked() == []


def test_what_is_refused(host: Host) -> None:
    never, dummy = host.locate(host.address(), pull="never")
    assert [str(problem) for problem in never.problems] == [
        f"image: {host.address()} is not on this host, and pull is never. Bring it there, or let it be pulled."
    ]
    (problem,) = host.locate(host.address("v9"))[0].problems
    assert problem.option == "image"
    assert "has no gpu/llamacpp with v9 (HTTP 404)" in problem.text
    assert problem.remedy == "Check image."
    host.server.auth = "basic"
    (problem,) = host.locate(host.address())[0].problems
    assert "gives it to known users only (HTTP 401)" in problem.text
    assert problem.remedy == "Check image, or give image_auth_file."
    found = host.locate(host.address())[0]
    assert images.facts(found, None, host.run, PROGRAM, {}, host.readings.__setitem__)[2] == [problem]


def test_what_turns_out_wrong_is_not_kept(host: Host) -> None:
    host.server.push("v1", ONE)
    host.server.blobs[digest(ONE)] = ONE[:-1] + b"?"
    found, access = host.locate(host.address())
    with pytest.raises(Refusal, match="^image: "):
        images.bring(found, access)
    assert host.files == []


def test_check_mode_before_there_is_anything_to_ask_with(host: Host) -> None:
    host.server.push("v1", ONE)
    found, dummy = host.locate(host.address(), may_ask=False)
    assert (found.comes, found.problems) == (True, ())
    assert "as requests is not on the host yet" in found.warnings[0]
    found, dummy = host.locate(host.address(), may_ask=False, sha256=sha256(ONE))
    assert found.actions[-1].what == f"Pull {host.address()} to {host.home}/shared/llamacpp-{sha256(ONE)[:12]}.sif"
    assert len(found.warnings) == 1
    assert os.listdir(host.home) == []
    assert host.server.asked() == []


def test_an_image_by_path_with_the_record_of_sif_image(host: Host) -> None:
    path = host.home / "x.sif"
    path.write_bytes(ONE)
    file_record.settle(str(path))
    details = {"reader": 1, "server_path": "/srv/llama-server", "build": "7", "options_digest": "d", "labels": {}}
    file_record.record(
        str(path), IMAGE_RECORDS, sha256(ONE), {"url": "oras://r.io/x:v1", "digest": "sha256:1"}, details
    )
    found, access = host.locate(str(path))
    assert images.bring(found, access) == found
    host.last = host.facts(found)
    assert (host.last["server_path"], host.last["build"], host.last["source"], host.last["digest"]) == (
        "/srv/llama-server",
        "7",
        "oras://r.io/x:v1",
        "sha256:1",
    )
    assert host.run.verbs == []


def test_a_private_registry(host: Host, tmp_path: Path) -> None:
    file, hidden = tmp_path / "auth.json", []
    entry = {"auths": {host.server.host: {"username": USER, "password": PASSWORD}}}
    options = {"image": host.address(), "image_auth_file": str(file), "image_no_https": True, "image_ca_path": None}
    with pytest.raises(Refusal, match=f"^image_auth_file: {file} is not there"):
        images.access_of(options, host.run, lambda: True, hidden.append)
    file.write_text(json.dumps(entry))
    host.server.auth = "private"
    host.server.push("v1", ONE)
    access = images.access_of(options, host.run, lambda: True, hidden.append)
    assert hidden == [PASSWORD]
    request = images.ImageRequest(host.address(), None, "missing", str(host.home), {}, access)
    images.bring(images.locate(request), access)
    assert host.files == [f"llamacpp-{sha256(ONE)[:12]}.sif"]
