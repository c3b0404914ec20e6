# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules from their arguments to their JSON, in this process; a real HTTP server where something is fetched."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import module as artifact_module
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import part_file
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.file import SUMMARY_KEYS
from ansible_collections.gpufleet.llamacpp.plugins.modules import gguf_model, gguf_model_info
from ansible_collections.gpufleet.llamacpp.tests.lab import hub as lab
from ansible_collections.gpufleet.llamacpp.tests.unit._fetch.fault_server import FaultServer
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder as build

CONTENT = build.model()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def call(capsys):
    def run(module, check=False, diff=False, **args):
        given = {**args, "_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def src(tmp_path):
    file = tmp_path / "src.gguf"
    file.write_bytes(CONTENT)
    return file


@contextmanager
def serving(contents):
    """An address that holds ``contents`` and honours ranges, and the list of what it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append(self.path)
            content = contents[self.path.partition("?")[0]]
            first, last = 0, len(content) - 1
            wanted = self.headers.get("Range")
            if wanted:
                first, last = (int(one) for one in wanted.partition("=")[2].split("-"))
                last = min(last, len(content) - 1)
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.write(content[first : last + 1])

        def log_message(self, *args):
            return None

    asked = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def server():
    with serving({"/m.gguf": CONTENT}) as found:
        yield found


def test_present_again_and_absent(call, src, tmp_path):
    path = str(tmp_path / "models" / "m.gguf")
    args = {"path": path, "src": str(src), "sha256": SHA256}
    first, second = call(gguf_model, **args), call(gguf_model, **args)
    assert first["changed"]
    assert first["actions"] == [f"Create the folder {tmp_path}/models", f"Copy {src} to {path}"]
    assert first["reasons"] == [f"{tmp_path}/models is not there", f"{path} is not there"]
    assert (second["changed"], second["actions"], second["model"]) == (False, [], first["model"])
    removed, again = call(gguf_model, path=path, state="absent"), call(gguf_model, path=path, state="absent")
    assert (removed["changed"], removed["actions"]) == (True, [f"Remove {path}"])
    assert not again["changed"]
    assert os.listdir(tmp_path / "models") == []


def test_fetched_once(call, server, tmp_path):
    address, asked = server
    path = str(tmp_path / "m.gguf")
    args = {"path": path, "url": f"{address}/m.gguf?token=hidden", "sha256": SHA256}
    first = call(gguf_model, **args)
    requests = len(asked)
    second = call(gguf_model, **args)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["model"]["source"] == f"{address}/m.gguf"
    assert first["transfer"]["bytes_fetched"] >= len(CONTENT)
    assert len(asked) == requests > 0
    assert "transfer" not in second
    with open(tmp_path / ".gguf_model" / "m.gguf.json") as file:
        assert "hidden" not in file.read()


def test_a_split_model_is_fetched_whole(call, tmp_path):
    parts = build.split(tmp_path, 2)
    contents = {f"/{part.name}": part.read_bytes() for part in parts}
    with serving(contents) as (address, dummy):
        path = str(tmp_path / "models" / parts[0].name)
        first = call(gguf_model, path=path, url=f"{address}/{parts[1].name}")
        assert [one["size"] for one in first["model"]["files"]] == [len(content) for content in contents.values()]
        assert not call(gguf_model, path=path, url=f"{address}/{parts[1].name}")["changed"]


def test_a_wrong_digest_reports_both_and_leaves_nothing(call, server, tmp_path):
    failed = call(gguf_model, path=str(tmp_path / "new" / "m.gguf"), url=f"{server[0]}/m.gguf", sha256="0" * 64)
    assert failed["failed"]
    assert SHA256 in failed["msg"]
    assert "0" * 64 in failed["msg"]
    assert os.listdir(tmp_path / "new") == []


def test_check_mode_touches_nothing_and_previews_the_change(call, src, tmp_path):
    args = {"path": str(tmp_path / "models" / "m.gguf"), "src": str(src)}
    previewed = call(gguf_model, check=True, diff=True, **args)
    assert not (tmp_path / "models").exists()
    done = call(gguf_model, diff=True, **args)
    assert (previewed["changed"], previewed["actions"], previewed["reasons"]) == (
        True,
        done["actions"],
        done["reasons"],
    )
    assert not call(gguf_model, check=True, **args)["changed"]
    gone = call(gguf_model, check=True, path=args["path"], state="absent")
    assert gone["changed"]
    assert (tmp_path / "models" / "m.gguf").exists()


def test_diff_shows_both_sides(call, src, tmp_path):
    diff = call(gguf_model, diff=True, path=str(tmp_path / "m.gguf"), src=str(src))["diff"]
    assert json.loads(diff["before"]) == {}
    assert json.loads(diff["after"]) == {str(tmp_path / "m.gguf"): {"size": len(CONTENT), "sha256": SHA256}}
    assert "diff" not in call(gguf_model, path=str(tmp_path / "m.gguf"))


def test_every_problem_is_in_one_message(call, tmp_path):
    failed = call(gguf_model, path=str(tmp_path), src="relative", url="ftp://h/m", sha256=["short"])
    assert failed["failed"]
    assert [problem["option"] for problem in failed["problems"]] == ["sha256", "url", "src", "src", "path"]
    assert all(problem["problem"] in failed["msg"] for problem in failed["problems"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("connections", [-5, 0, 65])
def test_connections_have_a_range(call, src, tmp_path, connections):
    failed = call(gguf_model, path=str(tmp_path / "m.gguf"), src=str(src), connections=connections)
    (problem,) = failed["problems"]
    assert (problem["option"], problem["problem"]) == ("connections", f"{connections} is out of range")
    assert not (tmp_path / "m.gguf").exists()


def test_a_run_without_change_imports_no_library(src, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    args = {"path": str(path), "url": "https://models.invalid/m.gguf", "sha256": SHA256}
    program = f"""
import sys
sys.modules["requests"] = None  # importing it fails
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llamacpp.plugins.modules import gguf_model
with patch_module_args({args!r}):
    gguf_model.main()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=env)
    assert json.loads(done.stdout)["changed"] is False


def test_info_of_a_folder(call, src, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(CONTENT[:-100])
    found = call(gguf_model_info, path=str(tmp_path))
    assert not found["changed"]
    assert [(os.path.basename(one["path"]), bool(one["problems"])) for one in found["models"]] == [
        ("cut.gguf", True),
        ("src.gguf", False),
    ]


def test_info_needs_an_absolute_path(call):
    assert "path: 'models' is not absolute." in call(gguf_model_info, path="models")["msg"]


def test_the_documentation_has_every_returned_key(call, src, tmp_path):
    documented = yaml.safe_load(gguf_model.RETURN)["model"]["contains"]
    found = call(gguf_model, path=str(tmp_path / "m.gguf"), src=str(src))["model"]
    assert set(documented) == set(found)
    assert set(SUMMARY_KEYS) < set(documented)
    documented = yaml.safe_load(gguf_model_info.RETURN)["models"]["contains"]
    assert set(documented) == set(call(gguf_model_info, path=str(tmp_path / "m.gguf"))["models"][0])


@pytest.mark.parametrize("module", [gguf_model, gguf_model_info])
def test_examples_use_only_options_that_exist(module):
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    name = f"gpufleet.llamacpp.{module.__name__.rpartition('.')[2]}"
    tasks = [task[name] for task in yaml.safe_load(module.EXAMPLES) if name in task]
    assert tasks
    for task in tasks:
        assert set(task) <= set(options)


# The model hub

REPO = "unsloth/Tiny-GGUF"
TOKEN = "hf_neverToBeSeenAnywhere0123456789"
PARTS = [f"UD-Q2_K_XL/big-{part:05d}-of-00002.gguf" for part in (1, 2)]


@pytest.fixture
def hub(tmp_path):
    parts = build.split(tmp_path, 2)
    files = {"tiny.gguf": CONTENT, **dict(zip(PARTS, (part.read_bytes() for part in parts)))}
    with lab.Hub() as served:
        served.repo(REPO).commit(files)
        yield served


@pytest.fixture
def tiny(hub, tmp_path):
    """Options for the hub's unsplit model."""
    return {
        "path": str(tmp_path / "models" / "m.gguf"),
        "repo": REPO,
        "file": "tiny.gguf",
        "endpoint": hub.endpoint,
    }


@pytest.fixture
def big(tiny, tmp_path):
    """Options for its split one, by a pattern."""
    return {**tiny, "path": str(tmp_path / "models" / "b-00002-of-00002.gguf"), "file": "UD-Q2_K_XL/*-of-00002.gguf"}


def head(hub):
    return hub.repos[REPO].branches["main"]


def asked_by(hub, call, **args):
    """The result, and what it asked the hub and its CDN for."""
    hub.asked.clear()
    return call(gguf_model, **args), [f"{one.server} {one.method} {one.path.partition('?')[0]}" for one in hub.asked]


def test_a_model_of_the_hub_and_what_the_next_run_asks(call, hub, tiny, tmp_path):
    first = call(gguf_model, **tiny)
    url = f"{hub.endpoint}/{REPO}/resolve/{head(hub)}/tiny.gguf"
    assert first["actions"] == [f"Create the folder {tmp_path}/models", f"Fetch {url} to {tiny['path']}"]
    found = first["model"]
    assert (found["sha256"], found["revision"], found["source"]) == (SHA256, head(hub), url)
    assert first["transfer"]["bytes_fetched"] >= len(CONTENT)
    again, asked = asked_by(hub, call, **tiny)
    assert (again["changed"], again["model"]) == (False, found)
    assert asked == [f"hub GET /api/models/{REPO}/revision/main"]
    pinned, asked = asked_by(hub, call, revision=head(hub), **tiny)
    assert (pinned["changed"], pinned["model"], asked) == (False, found, [])
    digest, asked = asked_by(hub, call, sha256=SHA256, **tiny)
    assert (digest["changed"], digest["model"], asked) == (False, found, [])


def test_a_split_model_of_the_hub_is_one_model(call, hub, big, tmp_path):
    first = call(gguf_model, **big)
    assert [os.path.basename(one["path"]) for one in first["model"]["files"]] == [
        "b-00001-of-00002.gguf",
        "b-00002-of-00002.gguf",
    ]
    assert first["model"]["revision"] == head(hub)
    for args in ({"revision": head(hub)}, {"revision": head(hub), "file": PARTS[0]}):
        again, asked = asked_by(hub, call, **{**big, **args})
        assert (again["changed"], again["model"], asked) == (False, first["model"], [])


def test_a_quota_is_checked_for_the_whole_set_before_its_first_byte(call, hub, big, tmp_path, monkeypatch):
    allocated = []

    def allocate(handle, size):
        allocated.append(size)
        if len(allocated) == 2:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(part_file, "allocate", allocate)
    failed, asked = asked_by(hub, call, **big)
    assert failed["failed"]
    assert "the 2 files of" in failed["msg"] and os.strerror(errno.EDQUOT) in failed["msg"]
    assert f"bytes of {tmp_path}/models/b-00002-of-00002.gguf" in failed["msg"]
    assert not any(one.startswith("cdn") for one in asked)
    assert os.listdir(tmp_path / "models") == []


def test_check_mode_asks_but_fetches_nothing_and_previews_all_the_hub_knows(call, hub, big, tmp_path):
    previewed, asked = asked_by(hub, call, check=True, diff=True, **big)
    assert not (tmp_path / "models").exists()
    assert not any(one.startswith("cdn") for one in asked)
    done = call(gguf_model, diff=True, **big)
    for key in ("changed", "actions", "reasons", "diff"):
        assert previewed[key] == done[key]
    for key in ("files", "size", "sha256", "source", "revision"):
        assert previewed["model"][key] == done["model"][key]
    assert not call(gguf_model, check=True, **big)["changed"]


def test_a_branch_that_moves_on_is_followed_where_the_content_is_another(call, hub, tiny):
    call(gguf_model, **tiny)
    same = hub.repos[REPO].commit({"tiny.gguf": CONTENT, "more.gguf": b"x"})
    previewed = call(gguf_model, check=True, **tiny)
    kept = call(gguf_model, **tiny)
    assert (kept["changed"], kept["model"]["revision"]) == (False, same)
    assert previewed["model"] == kept["model"]
    assert asked_by(hub, call, **tiny)[1] == [f"hub GET /api/models/{REPO}/revision/main"]
    other = build.model(data=build.DATA[::-1])
    hub.repos[REPO].commit({"tiny.gguf": other})
    moved = call(gguf_model, **tiny)
    assert moved["changed"]
    assert moved["model"]["sha256"] == hashlib.sha256(other).hexdigest()
    assert "is expected" in moved["reasons"][0]


def test_another_commit_that_is_pinned_is_returned(call, hub, tiny):
    first = call(gguf_model, sha256=SHA256, **tiny)
    same = hub.repos[REPO].commit({"tiny.gguf": CONTENT, "more.gguf": b"x"})
    for args in ({"check": True}, {}):
        pinned = call(gguf_model, sha256=SHA256, revision=same, **args, **tiny)
        assert (pinned["changed"], pinned["model"]["revision"]) == (False, same)
        assert pinned["model"]["source"] == first["model"]["source"].replace(first["model"]["revision"], same)
    again, asked = asked_by(hub, call, sha256=SHA256, revision=same, **tiny)
    assert (again["model"], asked) == (pinned["model"], [])


def test_a_small_file_outside_lfs_is_known_by_git(call, hub, tiny, monkeypatch):
    monkeypatch.setattr(lab, "_is_lfs", lambda name, file: False)
    call(gguf_model, **tiny)
    same = hub.repos[REPO].commit({"tiny.gguf": CONTENT, "more.gguf": b"x"})
    kept, asked = asked_by(hub, call, **tiny)
    assert (kept["changed"], kept["model"]["revision"]) == (False, same)
    assert not any("resolve-cache" in one for one in asked if "GET" in one)
    hub.repos[REPO].commit({"tiny.gguf": build.model(data=build.DATA[::-1])})
    assert call(gguf_model, **tiny)["changed"]


def test_a_touched_file_is_read_and_kept(call, hub, tiny):
    call(gguf_model, **tiny)
    os.utime(tiny["path"])
    again, asked = asked_by(hub, call, revision=head(hub), **tiny)
    assert not again["changed"]
    assert not any(one.startswith("cdn") for one in asked)


def test_a_damaged_file_is_fetched_again(call, hub, tiny):
    call(gguf_model, **tiny)
    with open(tiny["path"], "r+b") as file:
        file.seek(len(CONTENT) - 40)
        file.write(b"\xff")
    again = call(gguf_model, revision=head(hub), **tiny)
    assert again["changed"]
    with open(tiny["path"], "rb") as file:
        assert file.read() == CONTENT


def test_what_the_hub_gives_wrongly_never_appears(call, hub, tiny):
    hub.switches.flip = len(CONTENT) - 40
    failed = call(gguf_model, **tiny)
    assert failed["failed"]
    assert SHA256 in failed["msg"]
    assert not os.path.exists(tiny["path"])


def test_offline_uses_no_network_and_trusts_only_what_is_proven(call, hub, tiny, monkeypatch):
    nothing, asked = asked_by(hub, call, offline=True, **tiny)
    assert "no record holds the sha256 of" in nothing["msg"]
    missing, more = asked_by(hub, call, offline=True, sha256=SHA256, **tiny)
    assert "is not there. It is not fetched, as offline is set." in missing["msg"]
    first = call(gguf_model, **tiny)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for args in ({}, {"verify": "always"}, {"revision": head(hub)}, {"sha256": SHA256}):
        found, one = asked_by(hub, call, **tiny, **args)
        assert (found["changed"], found["model"]) == (False, first["model"])
        more += one
    other, one = asked_by(hub, call, revision="0" * 40, **tiny)
    assert "no record holds the sha256 of" in other["msg"]
    with open(tiny["path"], "r+b") as file:
        file.seek(len(CONTENT) - 40)
        file.write(b"\xff")
    damaged, two = asked_by(hub, call, **tiny)
    assert "is expected. It is not fetched, as offline is set." in damaged["msg"]
    assert asked + more + one + two == []


def test_offline_holds_for_an_address_too(call, server, tmp_path):
    failed = call(gguf_model, path=str(tmp_path / "m.gguf"), url=f"{server[0]}/m.gguf", offline=True)
    assert "It is not fetched, as offline is set." in failed["msg"]
    assert server[1] == []


def test_mirrors_help_and_get_no_token(call, hub, tiny, tmp_path):
    repo = hub.repos[REPO]
    repo.gated, repo.readers = True, {TOKEN}
    with FaultServer(CONTENT) as mirror:
        mirrors = [mirror.url, f"{mirror.url}/folder/"]
        found = call(gguf_model, mirrors=mirrors, token=TOKEN, connections=4, **tiny)
        assert found["model"]["sha256"] == SHA256
        assert TOKEN not in str([one.headers for one in mirror.requests])
        assert {one.path for one in mirror.requests} <= {"/file", "/file/folder/m.gguf"}


def test_a_mirror_carries_on_where_the_hub_breaks(call, hub, tiny):
    hub.switches.url_seconds = -1
    with FaultServer(CONTENT) as mirror:
        found = call(gguf_model, mirrors=[mirror.url], **tiny)
    assert found["transfer"]["bytes_from_mirrors"] >= len(CONTENT)
    assert found["model"]["revision"] == head(hub)


def test_the_environment_names_the_hub(call, hub, tiny, monkeypatch):
    del tiny["endpoint"]
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/")
    assert call(gguf_model, **tiny)["model"]["source"].startswith(f"{hub.endpoint}/{REPO}/resolve/")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"repo": "a/b/c"}, "repo: 'a/b/c' is not a repository. Write it like unsloth/GLM-4.7-Flash-GGUF."),
        ({"repo": "../b"}, "repo: '../b' is not a repository"),
        ({"file": "m.bin"}, "file: 'm.bin' is not the path of a .gguf file in the repository"),
        ({"file": "../m.gguf"}, "file: '../m.gguf' is not the path of a .gguf file"),
        ({"endpoint": "ftp://h"}, "endpoint: 'ftp://h' is not an http or https address."),
        ({"revision": ""}, "revision: it is empty"),
        (
            {"url": "http://h/m.gguf"},
            "url and repo are given, and a model comes from one place.",
        ),
        ({"mirrors": ["h/m.gguf"]}, "mirrors: 'h/m.gguf' is not an http or https address"),
        ({"file": "x-00001-of-00002.gguf"}, "Both must be unsplit"),
        ({"file": "UD-Q2_K_XL/*.gguf"}, "path names 1 file(s)"),
        ({"file": "*.gguf"}, "means 2 models"),
        ({"sha256": ["0" * 64]}, f"has the sha256 {SHA256}, and {'0' * 64} is expected"),
        ({"file": "Tiny.gguf"}, "Similar names: tiny.gguf"),
    ],
)
def test_options_that_cannot_be_met(call, hub, tiny, tmp_path, args, said):
    failed = call(gguf_model, **{**tiny, **args})
    assert said in failed["msg"]
    assert not (tmp_path / "models").exists()


def test_mirrors_need_a_sha256(call, tmp_path):
    args = {"path": str(tmp_path / "m.gguf"), "mirrors": ["http://h/m.gguf"]}
    assert "mirrors are given without sha256" in call(gguf_model, url="http://i/m.gguf", **args)["msg"]
    assert "neither repo nor url is" in call(gguf_model, **args)["msg"]


@pytest.mark.parametrize("how", ["token", "token_file"])
@pytest.mark.parametrize("fault", ["none", "denied", "flipped", "expired", "login_page", "no_file"])
def test_the_token_is_in_nothing_that_is_written_or_printed(hub, tiny, tmp_path, how, fault):
    repo = hub.repos[REPO]
    repo.gated, repo.readers = True, set() if fault == "denied" else {TOKEN}
    hub.switches.flip = 5 if fault == "flipped" else None
    hub.switches.url_seconds = -1 if fault == "expired" else 3600
    hub.switches.login_page = fault == "login_page"
    secret = tmp_path / "secret"
    secret.write_text(f"{TOKEN}\n")
    given = {"token": TOKEN} if how == "token" else {"token_file": str(secret)}
    args = {**tiny, **given, **({"file": "none.gguf"} if fault == "no_file" else {}), "_ansible_diff": True}
    program = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llamacpp.plugins.modules import gguf_model
with patch_module_args(json.load(sys.stdin)):
    gguf_model.main()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(args), capture_output=True, text=True, check=False, env=env
    )
    result = json.loads(done.stdout)
    assert bool(result.get("failed")) == (fault != "none"), result
    assert TOKEN not in done.stdout + done.stderr
    secret.unlink()
    for folder, names, files in os.walk(tmp_path):
        for name in [*names, *files]:
            assert TOKEN not in name
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                assert TOKEN.encode() not in file.read()
    assert any(TOKEN in str(one.headers) for one in hub.asked)
    assert not any(TOKEN in str(one.headers) for one in hub.asked if one.server == "cdn")
    assert not any(TOKEN in one.path for one in hub.asked)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("", "holds no token"), ("two words", "holds no token")]
)
def test_a_token_file_that_holds_none(call, tiny, tmp_path, content, said):
    if content is not None:
        (tmp_path / "secret").write_text(content)
    failed = call(gguf_model, token_file=str(tmp_path / "secret"), **tiny)
    assert said in failed["msg"]
    assert "two words" not in failed["msg"]


def test_check_mode_without_the_library_says_so_and_goes_on(call, hub, tiny, monkeypatch):
    monkeypatch.setattr(artifact_module, "prefer_library", lambda name, home: False)
    warned = []
    monkeypatch.setattr(gguf_model.AnsibleModule, "warn", lambda module, words: warned.append(words))
    previewed = call(gguf_model, check=True, **tiny)
    assert previewed["actions"][-1] == f"Fetch {hub.endpoint}/{REPO}/resolve/main/tiny.gguf to {tiny['path']}"
    assert "requests is not on the host yet" in warned[0]
    assert hub.asked == []
