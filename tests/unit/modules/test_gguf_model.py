# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules from their arguments to their JSON, in this process; a real HTTP server where something is fetched."""

from __future__ import annotations

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
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.gguf import SUMMARY_KEYS
from ansible_collections.gpufleet.llamacpp.plugins.modules import gguf_model, gguf_model_info
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact import gguf_builder as build

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


def test_check_mode_touches_nothing_and_foresees_what_happens(call, src, tmp_path):
    args = {"path": str(tmp_path / "models" / "m.gguf"), "src": str(src)}
    told = call(gguf_model, check=True, diff=True, **args)
    assert not (tmp_path / "models").exists()
    done = call(gguf_model, diff=True, **args)
    assert (told["changed"], told["actions"], told["reasons"]) == (True, done["actions"], done["reasons"])
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
    assert len(failed["problems"]) == 5
    assert all(problem in failed["msg"] for problem in failed["problems"])
    assert os.listdir(tmp_path) == []


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
    assert "must be absolute" in call(gguf_model_info, path="models")["msg"]


def test_the_documentation_tells_every_returned_key(call, src, tmp_path):
    told = yaml.safe_load(gguf_model.RETURN)["model"]["contains"]
    found = call(gguf_model, path=str(tmp_path / "m.gguf"), src=str(src))["model"]
    assert set(told) == set(found)
    assert set(SUMMARY_KEYS) < set(told)
    told = yaml.safe_load(gguf_model_info.RETURN)["models"]["contains"]
    assert set(told) == set(call(gguf_model_info, path=str(tmp_path / "m.gguf"))["models"][0])


@pytest.mark.parametrize("module", [gguf_model, gguf_model_info])
def test_examples_use_only_options_that_exist(module):
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    name = f"gpufleet.llamacpp.{module.__name__.rpartition('.')[2]}"
    tasks = [task[name] for task in yaml.safe_load(module.EXAMPLES) if name in task]
    assert tasks
    for task in tasks:
        assert set(task) <= set(options)
