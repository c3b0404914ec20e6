# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's token and the registry's password are in no output, file, process or request where they do not belong."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAB = os.environ.get("LAB") or "molecule"
TOKEN = "hf_secretOfTheScenario0123456789"
FOLDER = "/data/models/secret"


def tasks_of(servers, small):
    """Use both secrets in every way, right and wrong."""
    model = {"path": f"{FOLDER}/a/{small.first}", "repo": small.repo, "file": small.file, "endpoint": servers.hub}
    image = {"path": f"{FOLDER}/i.sif", "no_https": True, "username": servers.user, "password": servers.password}
    place = f"{servers.private}/lab"
    calls = [
        ("gguf_model", {**model, "token": TOKEN, "max_rate": "3M"}),
        ("gguf_model", {**model, "token": TOKEN, "verify": "always"}),
        ("gguf_model", {**model, "token_file": f"{FOLDER}/token", "path": f"{FOLDER}/b/{small.first}"}),
        ("gguf_model", {**model, "token": TOKEN, "path": f"{FOLDER}/c.gguf", "repo": "lab/Locked-GGUF"}),
        ("gguf_model", {**model, "token": f"{TOKEN} ", "path": f"{FOLDER}/c.gguf", "file": "no.gguf"}),
        ("sif_image", {**image, "src": f"oras://{place}/llamacpp:stable", "max_rate": "30M"}),
        ("sif_image", {**image, "src": f"oras://{place}/llamacpp:nope", "pull": "always"}),
        ("sif_image", {**image, "src": f"docker://{place}/container:1", "path": f"{FOLDER}/d.sif"}),
        ("sif_image", {**image, "src": f"docker://{place}/container:nope", "path": f"{FOLDER}/e.sif"}),
        ("sif_image", {**image, "src": f"oras://{place}/llamacpp:stable", "username": "nobody", "pull": "always"}),
        ("sif_image", {**image, "src": f"oras://{place}/llamacpp:stable", "path": f"{FOLDER}/f.sif"}),
    ]
    return [{f"gpufleet.llamacpp.{name}": options, "ignore_errors": True} for name, options in calls]


@pytest.fixture(scope="module")
def run(servers, host, login, small, tmp_path_factory):
    """The output of a play with -vvv, and the arguments of every process of this machine and its hosts meanwhile."""
    (servers.folder / "repos/lab/Locked-GGUF").mkdir(exist_ok=True)
    (servers.folder / "repos/lab/Locked-GGUF" / small.first).write_bytes(b"GGUF")
    servers.commit()
    gated = {"gated": True, "readers": [TOKEN]}
    servers.switch({small.repo: gated, "lab/Locked-GGUF": {**gated, "readers": []}})
    servers.asked()
    login.check_output(f"mkdir {FOLDER} && printf %s > {FOLDER}/token", TOKEN)
    playbook = tmp_path_factory.mktemp("play") / "play.json"
    playbook.write_text(json.dumps([{"hosts": "gpu1", "gather_facts": False, "tasks": tasks_of(servers, small)}]))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_FORCE_COLOR": "0",
        "LAB": LAB,
    }
    argv = [Path(sys.executable).parent / "ansible-playbook", "-vvv", "--diff", "-i", ROOT / "inventory/lab", playbook]
    output, seen = playbook.with_name("output"), set()
    with output.open("w") as stream:
        process = subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=stream, stderr=stream)
        while process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
            time.sleep(0.05)
    left = login.check_output("ls -A ~/.ansible/tmp ~/.ansible_async/*")
    login.check_output(f"rm {FOLDER}/token")
    yield {"left": left, "output": output.read_text(), "processes": seen, "asked": servers.asked()}
    servers.switch({small.repo: {"gated": False, "readers": []}})
    host.check_output(f"rm -rf {FOLDER}")


@pytest.fixture(scope="module")
def secrets(servers):
    """Both secrets, and the forms in which they are sent."""
    pairs = [f"{user}:{servers.password}".encode() for user in (servers.user, "nobody")]
    return [TOKEN, servers.password, *(base64.b64encode(pair).decode().rstrip("=") for pair in pairs)]


def test_the_play_succeeded_and_failed_as_planned(run):
    recap = run["output"].rpartition("PLAY RECAP")[2]

    assert "ignored=5" in recap, run["output"][-6000:]
    assert "changed=5" in recap, recap
    assert "Traceback" not in run["output"]


def test_the_output_has_no_secret(run, secrets):
    """-vvv prints the arguments of every task, and --diff the differences."""
    lines = [line for line in run["output"].splitlines() if any(secret in line for secret in secrets)]
    assert lines == []


def test_nothing_is_left_of_the_jobs(run):
    """This looks right after the play: Ansible removes the files of a short job only after five seconds."""
    assert re.findall(r"\S*ansible-tmp\S*|\S*\.progress\S*|^j?\d\S*", run["left"], re.M) == []


def test_no_process_was_started_with_a_secret(run, secrets):
    assert any("AnsiballZ_gguf_model" in one or "gguf_model" in one for one in run["processes"])
    assert any("apptainer" in one and "pull" in one for one in run["processes"])
    assert [one for one in run["processes"] if any(secret in one for secret in secrets)] == []


def test_no_file_of_the_host_has_a_secret(run, secrets):
    """The upper folder of the host's root has everything that the host has written."""
    upper = ROOT / ".lab/run" / LAB / "hosts/gpu1/upper"
    patterns = [word for secret in secrets for word in ("-e", secret)]
    # In the folder "direct" are the arguments that other tests have written (molecule/direct.py).
    argv = ["grep", "-rlF", "--exclude-dir=direct", *patterns, upper]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert (found.stdout, found.returncode) == ("", 1), found.stderr


def test_the_token_went_to_the_hub_alone(run):
    requests = {(server, authorization) for server, dummy, _path, authorization in run["asked"]}

    assert ("hub", f"Bearer {TOKEN}") in requests
    assert {authorization for server, authorization in requests if server == "cdn"} == {None}
