# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many containers the modules start to learn what is in an image. Each start costs an operator time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import file_record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import inspect as image_inspect
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime
from ansible_collections.gpufleet.llamacpp.plugins.modules import llamacpp_instance, sif_image
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import printed
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import sif
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import HELP

LABELS = '{"data": {"attributes": {"labels": {"title": "llama"}}}}'
TABLE = "Host 1 1 1 \n"
RunModule = Callable[..., dict[str, Any]]


class Host:
    """A host with a model and an image, on which the modules run; ``starts`` has what they started."""

    def __init__(self, folder: Path, run_module: RunModule) -> None:
        self.home = folder / "home"
        self.image = self.home / "shared" / "x.sif"
        self.model = folder / "a.gguf"
        self.image.parent.mkdir(parents=True)
        self.model.write_bytes(gguf_builder.model())
        self.run_module = run_module
        self.starts: list[str] = []

    def run_command(self, module: AnsibleModule, argv: Sequence[str], **dummy: Any) -> tuple[int, str, str]:
        if argv[1] == "inspect":
            self.starts.append("inspect")
            return 0, LABELS, ""
        if image_inspect.SCRIPT in argv:
            self.starts.append("read")
            return 0, printed("/app/llama-server", (0, "version: 11434 (abcdef)"), (0, HELP)), ""
        if argv[-1] == "--completion-bash":
            self.starts.append("parse")
            return 0, "", ""
        assert any("llama-fit-params" in word for word in argv), argv
        self.starts.append("fit")
        return 0, TABLE, ""

    def counted(self, module: Any, options: dict[str, Any], check: bool = False) -> list[str]:
        """What the module started."""
        self.starts.clear()
        self.run_module(module, {"home": str(self.home), **options}, check=check)
        return list(self.starts)

    def bring(self, source: Path) -> list[str]:
        return self.counted(sif_image, {"path": str(self.image), "src": str(source)})

    def deploy(self, check: bool = True, **changes: Any) -> list[str]:
        """Deploy it, up to the first change of the host where it is not check mode: there is no supervisor here."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        options = {"name": "one", "image": str(self.image), "model": str(self.model), "port": port, "host": "127.0.0.1"}
        return self.counted(llamacpp_instance, {**options, "manager": "supervisor", **changes}, check)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> Host:
    found = Host(tmp_path, run_module)
    monkeypatch.setattr(runtime, "find", lambda: "/usr/bin/apptainer")

    def run_command(module: AnsibleModule, argv: list[str], **more: Any) -> Any:
        return found.run_command(module, argv, **more)

    monkeypatch.setattr(AnsibleModule, "run_command", run_command)
    return found


def test_a_new_image_is_read_in_one_container(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source.sif"
    source.write_bytes(sif())
    assert host.bring(source) == ["inspect", "read"]
    assert host.bring(source) == []
    # The deployment asks only about its own command line.
    assert host.deploy() == ["parse", "fit"]


def test_an_image_that_sif_image_did_not_bring(host: Host) -> None:
    host.image.write_bytes(sif())
    assert host.deploy() == ["read", "read", "parse", "fit"], "check mode writes nothing, so it reads twice"
    assert host.deploy(check=False) == ["read", "parse", "fit"]
    assert host.deploy(context_size=4096) == ["parse", "fit"]


def test_what_version_0_1_0_recorded_is_not_asked_again(host: Host) -> None:
    host.image.write_bytes(sif())
    path = str(host.image)
    seen = file_record.hash_file(path)
    details = {
        "reader": 1,
        "labels": {},
        "server_path": "/app/llama-server",
        "build": "11434 (x)",
        "options_digest": "d",
    }
    file_record.settle(path)
    file_record.record(path, ".sif_image", seen, {"src": path}, details)
    assert host.counted(sif_image, {"path": path}) == []
    assert host.deploy() == ["read", "parse", "fit"]
