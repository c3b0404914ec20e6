# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module llamacpp_instance up to the point where it would change a host: what it refuses, and in which words."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import sif
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import module as instance_module
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.modules import llamacpp_instance
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import printed
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import RegistryServer
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import HELP
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record

RunModule = Callable[..., dict[str, Any]]


def test_a_command_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the host does not get into a script that runs inside an image."""
    monkeypatch.setenv("CUDA_VERSION", "of the host")
    with patch_module_args({}):
        run = instance_module._run(AnsibleModule({}))
    assert run(["printf", "%s", "$CUDA_VERSION ~"]) == (0, "$CUDA_VERSION ~", "")


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A whole spec on a host that has nothing yet but a container runtime."""
    monkeypatch.setattr(runtime, "find", lambda: "/usr/bin/apptainer")
    return {
        "name": "one",
        "home": str(tmp_path / "home"),
        "image": "shared/x.sif",
        "model": str(tmp_path / "a.gguf"),
        "port": 4403,
        "manager": "supervisor",
    }


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of which instance and which option the module warned."""
    found: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda self, warning: found.append(":".join(warning.split(":")[:2])))
    return found


def test_a_fresh_host_in_check_mode(
    run_module: RunModule, options: dict[str, Any], warned: list[str], tmp_path: Path
) -> None:
    result = run_module(llamacpp_instance, options, check=True, diff=True)
    assert not result["failed"], result
    assert result["changed"]
    assert result["actions"][-2:] == ["Install the unit (supervisor)", "Start llama-server and prove that it works"]
    assert result["instance"] == {"name": "one", "state": "absent"}
    assert warned == ["one: model", "one: image"]
    assert result["diff"]["before"] == "{}\n"
    assert "--port" in result["diff"]["after"]
    assert os.listdir(tmp_path) == []


def test_an_image_that_would_be_pulled_is_in_the_diff(
    run_module: RunModule, options: dict[str, Any], warned: list[str]
) -> None:
    with RegistryServer() as server:
        content = b"#" * 100
        server.blobs["sha256:x.sif"] = content
        address = f"http://{server.host}/v2/gpu/llamacpp/blobs/sha256:x.sif"
        pulled = {**options, "image": address, "image_sha256": "AB" * 32}
        result = run_module(llamacpp_instance, pulled, check=True, diff=True)
    path = f"{options['home']}/shared/sha256:x-abababababab.sif"
    assert result["actions"][:2] == [f"Create the folder {options['home']}/shared", f"Pull {address} to {path}"]
    assert f"{path} is not there" in result["reasons"]
    assert f'"image_sha256": "{"ab" * 32}"' in result["diff"]["after"]
    assert warned == ["one: model"]


def test_a_pull_that_is_not_allowed(run_module: RunModule, options: dict[str, Any]) -> None:
    never = {**options, "image": "https://files.example.org/x.sif", "image_sha256": "ab" * 32, "pull": "never"}
    result = run_module(llamacpp_instance, never)
    assert result["failed"]
    assert "/shared/x-abababababab.sif is not there. pull is never: bring it there" in result["msg"]


def test_what_is_missing_is_refused_all_at_once(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    result = run_module(llamacpp_instance, options)
    assert result["failed"]
    assert result["msg"].startswith("2 problems, nothing was changed:\n  1. model: ")
    assert "  2. image: " in result["msg"]
    assert os.listdir(tmp_path) == []


def test_wrong_options_come_before_everything(run_module: RunModule, options: dict[str, Any]) -> None:
    result = run_module(llamacpp_instance, {**options, "port": 70000, "args": ["--api-key x"]})
    assert result["failed"]
    assert "port: 70000 is out of range" in result["msg"]
    assert "use api_key_file" in result["msg"]


def test_the_gates_options_are_refused_with_the_others(run_module: RunModule, options: dict[str, Any]) -> None:
    prompts = [{"prompt": "2+2?", "pattern": "(4"}]
    wrong = {"port": 70000, "gate_prompts": prompts, "max_slowdown": "fast", "gate_prompt_tokens": -1}
    said = run_module(llamacpp_instance, {**options, **wrong}, check=True)["msg"]
    assert "port: 70000" in said
    assert "gate_prompts: entry 1: the pattern '(4' is not a Python regular expression" in said
    assert "max_slowdown: 'fast' is not a percentage from 1% to 99%" in said
    assert "gate_prompt_tokens: -1 is out of range" in said


def test_port_and_arguments_are_refused_together(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def image(self: AnsibleModule, argv: list[str], **more: Any) -> tuple[int, str, str]:
        if argv[-1] == "--completion-bash":
            return 0, "", ""
        return 0, printed("/usr/bin/llama-server", help_text=(0, HELP)), ""

    monkeypatch.setattr(AnsibleModule, "run_command", image)
    (tmp_path / "a.gguf").write_bytes(gguf_builder.model())
    (tmp_path / "x.sif").write_bytes(bytes(32) + sif.MAGIC)
    with socket.create_server(("127.0.0.1", 0)) as server:
        changes = {
            "image": str(tmp_path / "x.sif"),
            "port": server.getsockname()[1],
            "args": ["--tempp 1", "--tools all"],
        }
        result = run_module(llamacpp_instance, {**options, **changes})
    assert result["failed"]
    assert "1. args: --tools lets clients" in result["msg"]
    assert f"2. port: {changes['port']} is in use by pid {os.getpid()}" in result["msg"]
    assert "3. args: unknown option --tempp. Did you mean --temp?" in result["msg"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("state", ["started", "restarted", "present"])
def test_a_new_instance_needs_a_whole_spec(run_module: RunModule, options: dict[str, Any], state: str) -> None:
    result = run_module(llamacpp_instance, {"name": "one", "home": options["home"], "state": state})
    assert result["failed"]
    assert "there is no instance one in" in result["msg"]
    result = run_module(llamacpp_instance, {"name": "one", "home": options["home"], "state": state, "port": 4403})
    assert "1. image: it is missing" in result["msg"]
    assert "2. model: it is missing" in result["msg"]


@pytest.mark.parametrize(("state", "name"), [("stopped", "../x"), ("absent", "shared"), ("absent", "..")])
def test_a_name_that_would_leave_its_folder(
    run_module: RunModule, options: dict[str, Any], state: str, name: str
) -> None:
    result = run_module(llamacpp_instance, {"name": name, "home": options["home"], "state": state})
    assert result["failed"]
    assert result["msg"].startswith(f"name: {name!r} ")


def test_absent_that_is_absent(run_module: RunModule, options: dict[str, Any]) -> None:
    result = run_module(llamacpp_instance, {"name": "one", "home": options["home"], "state": "absent"})
    assert (result["failed"], result["changed"], result["actions"]) == (False, False, [])
    assert result["instance"] == {"name": "one", "state": "absent"}


def test_a_folder_that_is_no_instance_is_not_removed(run_module: RunModule, options: dict[str, Any]) -> None:
    folder = Path(options["home"]) / "one"
    folder.mkdir(parents=True)
    result = run_module(llamacpp_instance, {"name": "one", "home": options["home"], "state": "absent"})
    assert result["failed"]
    assert result["msg"] == f"name: {folder} is not an instance (it has no instance.json), so it is not removed."
    assert folder.exists()


def test_stopping_what_is_not_there(run_module: RunModule, options: dict[str, Any]) -> None:
    result = run_module(llamacpp_instance, {"name": "one", "home": options["home"], "state": "stopped"})
    assert result["failed"]
    assert result["msg"] == f"name: there is no instance one in {options['home']}, so it cannot be stopped."


@pytest.mark.parametrize("state", ["started", "present", "stopped", "absent"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not the record of an instance"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 99}', "has format 99"),
    ],
)
def test_a_record_that_cannot_be_understood(
    run_module: RunModule, options: dict[str, Any], state: str, content: str, said: str
) -> None:
    folder = Path(options["home"]) / "one"
    folder.mkdir(parents=True)
    (folder / "instance.json").write_text(content)
    result = run_module(llamacpp_instance, {**options, "state": state})
    assert result["failed"]
    assert f"{folder}/instance.json {said}" in result["msg"]
    assert (folder / "instance.json").read_text() == content


@pytest.mark.parametrize(
    "content", ["[]", "7", "null", "{", '{"runner_pid": "x", "runner_start": []}', '{"launch": {}}']
)
def test_a_state_file_of_another_shape_stops_nobody(
    run_module: RunModule, options: dict[str, Any], content: str
) -> None:
    folder = Path(options["home"]) / "one"
    folder.mkdir(parents=True)
    store.write(str(folder), a_record(name="one"))
    (folder / "running.json").write_text(content)
    result = run_module(llamacpp_instance, {"name": "one", "home": options["home"], "state": "stopped"}, check=True)
    assert (result["failed"], result["instance"]["state"]) == (False, "stopped")
