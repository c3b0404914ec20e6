# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""sif_image from its arguments to its JSON, in this process; a registry on 127.0.0.1, and a runtime that is none."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import file_record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import inspect as image_inspect
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources import apptainer
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime
from ansible_collections.gpufleet.llamacpp.plugins.modules import sif_image
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import FakeRuntime
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import (
    PASSWORD,
    USER,
    RegistryServer,
    digest,
    sif,
)

CONTENT = sif()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def fake(monkeypatch):
    found = FakeRuntime()
    monkeypatch.setattr(runtime, "find", lambda: "/usr/bin/apptainer")
    monkeypatch.setattr(
        AnsibleModule, "run_command", lambda self, argv, environ_update=None, **more: found(argv, environ_update)
    )
    return found


@pytest.fixture
def call(capsys, fake):
    def run(check=False, diff=False, **args):
        given = {**args, "_ansible_check_mode": check, "_ansible_diff": diff}
        warned = []
        with (
            pytest.MonkeyPatch.context() as patch,
            patch_module_args(given),
            pytest.raises(SystemExit),
        ):
            # Ansible keeps the warnings of a process, and these are many modules in one process.
            patch.setattr(sif_image.AnsibleModule, "warn", lambda module, text, **more: warned.append(text))
            sif_image.main()
        return {**json.loads(capsys.readouterr().out), "warnings": warned}

    return run


@pytest.fixture
def server():
    with RegistryServer() as found:
        yield found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shared" / "x.sif"


@pytest.fixture
def src(tmp_path):
    file = tmp_path / "src.sif"
    file.write_bytes(CONTENT)
    os.utime(file, (1700000000, 1700000000))
    return file


def entries(folder):
    return sorted(
        os.path.relpath(os.path.join(top, one), folder) for top, _dirs, names in os.walk(folder) for one in names
    )


def address(server, tag="v1", scheme="oras"):
    return {"src": f"{scheme}://{server.host}/gpu/llamacpp:{tag}", "no_https": True}


def test_copied_once_then_only_the_record_is_read(call, fake, src, path):
    first = call(path=str(path), src=str(src))
    assert first["actions"] == [f"Create the folder {path.parent}", f"Copy {src} to {path}"]
    assert fake.verbs == ["inspect", "/bin/sh"]
    assert entries(path.parent) == [".sif_image/x.sif.json", "x.sif"]
    second = call(path=str(path), src=str(src))
    assert (second["changed"], second["image"], fake.verbs) == (False, first["image"], [])
    src.write_bytes(sif(b"another"))
    third = call(path=str(path), src=str(src))
    assert third["changed"]
    assert path.read_bytes() == sif(b"another")


def test_a_file_in_use_is_replaced_and_not_written_to(call, src, path):
    call(path=str(path), src=str(src))
    with open(path, "rb") as running:
        src.write_bytes(sif(b"another"))
        call(path=str(path), src=str(src))
        assert running.read() == CONTENT


def test_a_tag_is_followed_where_that_is_wanted(call, server, path):
    pushed = server.push("v1", CONTENT)
    args = {"path": str(path), **address(server)}
    first = call(**args)
    assert (first["image"]["digest"], first["image"]["sha256"]) == (pushed, SHA256)
    assert first["transfer"]["bytes_fetched"] >= len(CONTENT)
    server.asked()
    moved = server.push("v1", sif(b"another"))
    assert not call(**args)["changed"]
    assert server.asked() == []
    previewed = call(check=True, **args, pull="always")
    assert previewed["changed"]
    assert path.read_bytes() == CONTENT
    second = call(**args, pull="always")
    assert (second["changed"], second["image"]["digest"], second["reasons"]) == (True, moved, previewed["reasons"])
    server.asked()
    assert not call(**args, pull="always")["changed"]
    assert server.asked() == ["HEAD /v2/gpu/llamacpp/manifests/v1"]
    pinned = {**args, "src": f"oras://{server.host}/gpu/llamacpp@{moved}"}
    assert not call(**pinned, pull="always")["changed"]
    assert server.asked() == []


def test_a_file_put_there_by_hand_is_known_by_its_digest(call, server, path):
    pushed = server.push("v1", CONTENT)
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    found = call(path=str(path), **address(server), pull="always")
    assert (found["changed"], found["image"]["digest"]) == (False, pushed)
    assert not any("blobs" in one for one in server.asked())


def test_a_damaged_blob_changes_nothing(call, server, src, path):
    call(path=str(path), src=str(src))
    other = sif(b"another")
    server.push("v1", other)
    server.blobs[digest(other)] = other[:-1] + b"?"
    failed = call(path=str(path), **address(server))
    assert failed["failed"]
    assert path.read_bytes() == CONTENT
    assert entries(path.parent) == [".sif_image/x.sif.json", "x.sif"]
    assert ".sif_image" not in failed["msg"]


def test_what_is_no_sif_is_not_kept(call, server, path):
    server.push("v1", b"<html>", kind="application/octet-stream")
    failed = call(path=str(path), **address(server))
    assert failed["msg"] == (
        f"src: oras://{server.host}/gpu/llamacpp:v1 is not a SIF image but an HTML page. "
        "Pull it again, or name another file. Nothing of it was kept."
    )
    assert entries(path.parent) == []


def test_a_password_gets_nowhere(call, fake, path, tmp_path):
    with RegistryServer("private") as server:
        server.push("v1", CONTENT)
        fake.pulls = CONTENT
        secret = {"username": USER, "password": PASSWORD}
        results = [call(path=str(path), **address(server), **secret)]
        results.append(call(path=str(path) + "2", **address(server, scheme="docker"), **secret))
        assert [one["changed"] for one in results] == [True, True]
        assert fake.pulled_with["APPTAINER_DOCKER_PASSWORD"] == PASSWORD
        assert PASSWORD not in str(fake.asked)
        fake.pulls = None
        results.append(call(path=str(path) + "3", **address(server, scheme="docker"), **secret))
        results.append(call(path=str(path) + "3", **address(server), username=USER, password="wrong-word"))
        assert "does not accept the user robot" in results[-1]["msg"]
        for one in results:
            one.pop("invocation", None)
        assert PASSWORD not in str(results)
        assert "wrong-word" not in str(results)
        for one in entries(tmp_path):
            assert PASSWORD.encode() not in (tmp_path / one).read_bytes()


def test_docker_is_built_next_to_its_place_and_known_by_its_manifest(call, fake, server, path):
    pushed = server.push("v1", b"a layer")
    args = {"path": str(path), **address(server, scheme="docker")}
    fake.pulls = CONTENT
    first = call(**args)
    assert (first["image"]["digest"], first["image"]["sha256"]) == (pushed, SHA256)
    (pull,) = [argv for argv in fake.asked if argv[1] == "pull"]
    assert pull[1:4] == ["pull", "--disable-cache", "--no-https"]
    assert pull[-2].startswith(f"{path.parent}/.sif_image/incoming/.x.sif.")
    assert pull[-1] == f"docker://{server.host}/gpu/llamacpp@{pushed}"
    assert entries(path.parent) == [".sif_image/x.sif.json", "x.sif"]
    fake.verbs  # noqa: B018  (forget them)
    # Another build of the same manifest would be another file, so there is none.
    fake.pulls = sif(b"built again")
    assert not call(**args, pull="always")["changed"]
    assert fake.verbs == []
    server.push("v1", b"another layer")
    assert call(**args, pull="always")["image"]["sha256"] == hashlib.sha256(fake.pulls).hexdigest()


def test_a_build_that_fails_leaves_nothing(call, server, path):
    server.push("v1", b"a layer")
    failed = call(path=str(path), **address(server, scheme="docker"))
    assert "apptainer could not pull docker://" in failed["msg"]
    assert "manifest unknown" in failed["msg"]
    assert os.listdir(path.parent) == []


def test_builds_of_killed_runs_are_swept(tmp_path):
    place = str(tmp_path / "x.sif")
    with apptainer.folder(place) as live:
        left = tmp_path / ".x.sif.abc.build"
        (left / "tmp").mkdir(parents=True)
        with apptainer.folder(place) as mine:
            assert not left.exists()
            assert os.path.isdir(live)
        assert not os.path.exists(mine)
    assert os.listdir(tmp_path) == []


def test_a_library_by_its_sha256(call, fake, path):
    fake.pulls = CONTENT
    args = {"path": str(path), "src": "library://a/b/c:v1", "sha256": SHA256}
    assert call(**args)["image"]["source"] == "library://a/b/c:v1"
    assert not call(**args)["changed"]
    failed = call(**{**args, "sha256": "0" * 64})
    assert SHA256 in failed["msg"]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("pgp", [False, True])
def test_only_what_is_signed(call, fake, src, path, tmp_path, pgp):
    key = tmp_path / "key"
    key.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----" if pgp else "-----BEGIN PUBLIC KEY-----")
    args = {"path": str(path), "src": str(src), "verify_signature": True, "public_key": str(key)}
    fake.signed = False
    failed = call(**args)
    assert failed["msg"].startswith(
        f"public_key: {src} is not signed with the key {key}: Failed to verify: no signature."
    )
    assert not path.exists()
    assert fake.verbs == (["key", "verify"] if pgp else ["verify"])
    fake.signed = True
    assert call(**args)["changed"]
    assert "verify" in fake.verbs
    assert not call(**args)["changed"]
    assert fake.verbs == []
    key.write_text(key.read_text() + "another")
    fake.signed = False
    assert call(**args)["failed"]
    assert path.read_bytes() == CONTENT


def test_a_key_does_not_go_into_the_users_own_ring(call, fake, src, path, tmp_path):
    key = tmp_path / "key"
    key.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    fake.takes_ring = False
    failed = call(path=str(path), src=str(src), verify_signature=True, public_key=str(key))
    assert "supports no temporary key ring" in failed["msg"]
    assert "verify" not in fake.verbs


def test_an_image_without_a_server_is_asked_again(call, fake, src, path):
    fake.answers["/bin/sh"] = (1, "", "")
    first = call(path=str(path), src=str(src))
    assert first["image"]["server_path"] is None
    assert "has no llama-server" in str(first["warnings"])
    del fake.answers["/bin/sh"]
    fake.answers["/bin/sh"] = (0, "/app/llama-server\n", "")
    second = call(path=str(path), src=str(src))
    assert (second["changed"], second["image"]["server_path"]) == (False, "/app/llama-server")
    fake.verbs  # noqa: B018  (forget them)
    assert call(path=str(path), src=str(src))["image"] == second["image"]
    assert fake.verbs == []


def test_what_another_record_does_not_know_is_learned(call, fake, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    file_record.settle(str(path))
    file_record.record(str(path), ".sif_image", SHA256, {"url": "https://h/x.sif"})
    previewed = call(check=True, path=str(path))
    assert (previewed["changed"], previewed["image"]["build"]) == (False, "6123 (abcdef)")
    assert file_record.recorded(str(path), ".sif_image").details == {}
    assert call(path=str(path))["image"] == previewed["image"]
    assert image_inspect.learned(file_record.recorded(str(path), ".sif_image").details) is not None


def test_a_damaged_file_is_found_and_brought_again(call, server, path):
    server.push("v1", CONTENT)
    args = {"path": str(path), **address(server)}
    call(**args)
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    previewed, done = call(check=True, **args), call(**args)
    assert (previewed["changed"], previewed["reasons"]) == (True, done["reasons"])
    assert path.read_bytes() == CONTENT


def test_check_mode_touches_nothing_and_previews_the_change(call, server, path):
    server.push("v1", CONTENT)
    args = {"path": str(path), **address(server)}
    previewed = call(check=True, diff=True, **args)
    assert not path.parent.exists()
    done = call(diff=True, **args)
    assert (previewed["changed"], previewed["actions"], previewed["diff"]) == (True, done["actions"], done["diff"])
    assert {key: value for key, value in previewed["image"].items() if value is not None}.items() <= done[
        "image"
    ].items()
    gone = call(check=True, diff=True, path=str(path), state="absent")
    assert (gone["changed"], path.exists()) == (True, True)
    assert json.loads(gone["diff"]["after"]) == {}


def test_absent_takes_everything_away(call, src, path):
    call(path=str(path), src=str(src))
    left = path.parent / ".sif_image" / "incoming" / ".x.sif.abc.build"
    (left / "tmp").mkdir(parents=True)
    removed = call(path=str(path), state="absent")
    assert removed["actions"] == [f"Remove {path}", f"Remove {left}"]
    assert os.listdir(path.parent) == []
    assert not call(path=str(path), state="absent")["changed"]


def test_every_problem_is_in_one_message(call, tmp_path):
    failed = call(
        path="x",
        src=f"oras://r.io/a@{'1' * 64}",
        sha256="12",
        auth_file=str(tmp_path / "no"),
        max_rate="fast",
        connections=0,
    )
    assert [problem["option"] for problem in failed["problems"]] == [
        "path",
        "connections",
        "max_rate",
        "src",
        "sha256",
    ]
    failed = call(path="/x", src="oras://r.io/a", auth_file=str(tmp_path / "no"))
    (problem,) = failed["problems"]
    assert (problem["option"], problem["problem"]) == ("auth_file", f"{tmp_path}/no is not there on the host")
    assert "public_key" in call(path="/x", verify_signature=True)["msg"]


def test_a_folder_is_no_image(call, tmp_path):
    failed = call(path=str(tmp_path), src="https://h/x.sif")
    assert failed["problems"] == [
        {"option": "path", "problem": f"{tmp_path} is a folder", "remedy": "Name a SIF file."}
    ]


@pytest.mark.parametrize("connections", [-5, 0, 65])
def test_connections_have_a_range(call, path, connections):
    (problem,) = call(path=str(path), src="https://h/x.sif", connections=connections)["problems"]
    assert (problem["option"], problem["problem"]) == ("connections", f"{connections} is out of range")


def test_the_documentation_has_every_returned_key(call, src, path):
    documented = yaml.safe_load(sif_image.RETURN)
    found = call(path=str(path), src=str(src))
    assert set(documented["image"]["contains"]) == set(found["image"])
    assert set(documented["transfer"]["contains"]) == set(found["transfer"])


def test_examples_use_only_options_that_exist():
    options = yaml.safe_load(sif_image.DOCUMENTATION)["options"]
    name = "gpufleet.llamacpp.sif_image"
    tasks = [task[name] for task in yaml.safe_load(sif_image.EXAMPLES) if name in task]
    assert tasks
    assert all(set(task) <= set(options) for task in tasks)
