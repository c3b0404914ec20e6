# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images from a real OCI registry, with and without a token, through Apptainer, over TLS, and from a path."""

import hashlib
import json
import time

import pytest

SIF = "llamacpp-cuda-complete.sif"
FOLDER = "/data/models/images"


def oras(registry, **more):
    return {"src": f"oras://{registry}/lab/llamacpp:stable", "no_https": True, **more}


def docker(registry, **more):
    return {"src": f"docker://{registry}/lab/container:1", "no_https": True, **more}


@pytest.fixture(scope="module")
def answers(servers, direct, host, login):
    """The results of check mode, of a run and of a second run for each source; one result for each refusal."""
    login.check_output(f"mkdir -p {FOLDER}")
    for name, content in (
        ("ca.pem", (servers.folder / "ca.pem").read_text()),
        ("auth.json", json.dumps({"auths": {servers.private: {"username": "robot", "password": servers.password}}})),
    ):
        login.check_output(f"printf %s %s > {FOLDER}/{name} && chmod 600 {FOLDER}/{name}", "%s", content)
    who = {"username": servers.user, "password": servers.password}
    tls = {"src": f"{servers.files_tls}/{SIF}", "ca_path": f"{FOLDER}/ca.pem"}
    sources = {
        "oras": oras(servers.registry),
        "oras, password": oras(servers.private, **who),
        "oras, file": oras(servers.private, auth_file=f"{FOLDER}/auth.json"),
        "https": tls,
        "path": {"src": f"{FOLDER}/oras.sif"},
        "docker": docker(servers.registry),
        "docker, password": docker(servers.private, **who),
    }
    refused = {
        "nobody": oras(servers.private),
        "wrong password": oras(servers.private, username="robot", password="not-it-at-all"),
        "no such tag": {**oras(servers.registry), "src": f"oras://{servers.registry}/lab/llamacpp:nope"},
        "a container as a file": {**oras(servers.registry), "src": f"oras://{servers.registry}/lab/container:1"},
        "unknown authority": {"src": tls["src"]},
    }
    found = {}
    for name, options in sources.items():
        path = f"{FOLDER}/{name.replace(', ', '-')}.sif"
        found[name] = [direct.run("sif_image", check, path=path, **options) for check in (True, False, False)]
    started = {name: direct.start("sif_image", path=f"{FOLDER}/refused.sif", **refused[name]) for name in refused}
    yield {**found, **{name: running.result() for name, running in started.items()}}
    host.check_output(f"rm -rf {FOLDER}")


ORAS = ["oras", "oras, password", "oras, file"]
DOCKER = ["docker", "docker, password"]
ALL = [*ORAS, "https", "path", *DOCKER]


@pytest.mark.parametrize("name", ALL)
def test_check_mode_previews_the_run_and_a_second_run_changes_nothing(answers, name):
    preview, done, again = answers[name]

    for key in ("changed", "actions", "reasons"):
        assert preview[key] == done[key], key
    known = {key: value for key, value in preview["image"].items() if value is not None}
    assert {key: done["image"][key] for key in known} == known
    assert (done["changed"], again["changed"]) == (True, False), (done, again)
    assert again["image"] == done["image"]


@pytest.mark.parametrize("name", [*ORAS, "https", "path"])
def test_the_file_is_the_labs_image(answers, login, servers, name):
    image = answers[name][1]["image"]

    digest = hashlib.sha256((servers.folder / "files" / SIF).read_bytes()).hexdigest()
    assert image["sha256"] == digest
    assert login.file(image["path"]).sha256sum == digest
    assert image["server_path"] == "/opt/llama.cpp/build/bin/llama-server"


@pytest.mark.parametrize(("name", "what"), [*[(name, "llamacpp:stable") for name in ORAS]])
def test_the_tag_is_resolved_to_the_registrys_digest(answers, servers, name, what):
    assert answers[name][1]["image"]["digest"] == servers.digest(*f"lab/{what}".split(":"))


@pytest.mark.parametrize("name", DOCKER)
def test_apptainer_converts_a_container_image(answers, login, servers, name):
    image = answers[name][1]["image"]

    assert image["digest"] == servers.digest("lab/container", "1")
    assert image["labels"]["org.opencontainers.image.title"] == "The lab's container"
    assert login.check_output(f"apptainer sif list {image['path']} | grep -c Squashfs") == "1"
    assert login.check_output(f"find {FOLDER} -name '*.build' -o -name tmp -o -name cache") == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", ["username"]),
        ("wrong password", ["robot", "401"]),
        ("no such tag", ["nope"]),
        ("a container as a file", ["docker://"]),
        ("unknown authority", ["certificate"]),
    ],
)
def test_a_refusal_has_a_message(answers, login, sentence, name, words):
    said = sentence(answers[name])

    assert [word for word in words if word.lower() not in said.lower()] == [], said
    assert "not-it-at-all" not in json.dumps(answers[name])
    assert not login.file(f"{FOLDER}/refused.sif").exists


def test_a_digest_is_not_looked_up_again(direct, servers, home):
    digest = servers.digest("lab/llamacpp", "stable")
    options = {"path": f"{home}/pinned.sif", "src": f"oras://{servers.registry}/lab/llamacpp@{digest}"}
    assert direct.run("sif_image", no_https=True, **options)["changed"]
    assert servers.asked_of_registry() != []

    assert direct.run("sif_image", no_https=True, pull="always", **options)["changed"] is False
    assert servers.asked_of_registry() == []


def test_a_moved_tag_is_followed_and_the_image_in_use_stays_whole(
    answers, direct, servers, host, login, home, file_of_host
):
    """A process that has the old file open continues to read it; the new file has its name."""
    first, second = servers.folder / "files" / SIF, file_of_host(answers["docker"][1]["image"]["path"])
    path = f"{home}/moving.sif"
    options = {"path": path, "src": f"oras://{servers.registry}/lab/moving:stable", "no_https": True}
    servers.push("lab/moving", "stable", first)
    assert direct.run("sif_image", **options)["changed"]
    login.check_output(f"setsid -f apptainer exec --containall {path} sleep 60 > /dev/null 2>&1 < /dev/null")
    find = f"find /proc/[0-9]*/fd -lname '{path}*' 2>/dev/null"
    deadline = time.monotonic() + 30
    while not host.run(f"pgrep -x sleep && {find}").stdout.count("/fd/") and time.monotonic() < deadline:
        time.sleep(0.1)
    servers.push("lab/moving", "stable", second)

    kept = direct.run("sif_image", **options)
    servers.asked_of_registry()
    moved = direct.run("sif_image", pull="always", **options)
    again = direct.run("sif_image", pull="always", **options)

    assert (kept["changed"], moved["changed"], again["changed"]) == (False, True, False), (kept, moved, again)
    assert login.file(path).sha256sum == moved["image"]["sha256"] == hashlib.sha256(second.read_bytes()).hexdigest()
    assert moved["image"]["digest"] == servers.digest("lab/moving", "stable")
    in_use = host.check_output(find).splitlines()
    assert host.check_output(f"sha256sum < {in_use[0]}").split()[0] == hashlib.sha256(first.read_bytes()).hexdigest()
    host.check_output("pkill -x sleep")
