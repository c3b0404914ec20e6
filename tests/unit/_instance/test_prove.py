# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One launch through the gate: against a server that answers as llama-server does. The GPUs are made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import read as gpu
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.read import Gpu, GpuProcess
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import prove
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import gpus
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import ModelFacts, Record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.render import Place
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import MODEL, Server, changed, serving
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import (
    a_record,
    with_launch,
    with_setup,
)

NAME = "4403-glm-4.7-flash-q4"
NO_GPU = "warning: no usable GPU found, --gpu-layers option will be ignored"


class Fake(manager.Manager):
    """A manager of a unit that runs."""

    name = "supervisor"

    def __init__(self) -> None:
        super().__init__(lambda argv: (0, "", ""), "/h")

    def observe(self, unit: manager.Unit) -> manager.UnitState:
        return manager.UnitState(True, True, True)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        found.answers["/props"]["model_path"] = "/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf"
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / NAME).mkdir()
    return tmp_path


def place(home: Path) -> Place:
    return Place(str(home), NAME, Fake(), lambda argv: (1, "", ""))


def record(
    home: Path, server: Server, log: str = "", exit_status: int | None = None, gate: Gate | None = None, *gpus: str
) -> Record:
    """A launch that its runner has seen ready, and which has ended by now where ``exit_status`` is given."""
    base = a_record()
    assert base.model
    model = ModelFacts.from_json({**base.model.to_json(), **MODEL})
    found = with_launch(with_setup(base, model=model), url=server.url, gpus=gpus)
    found = replace(found, gate=(gate or Gate(prompt_tokens=10)).as_dict())
    account: dict[str, Any] = {"launch": found.launch.id, "runner_pid": 1, "ready": 1.0}
    ready = home / NAME / "running.json"
    ready.write_text(json.dumps(account))
    if exit_status is not None:

        def ends(dummy: Any) -> Any:
            ready.write_text(json.dumps({**account, "exit": {"status": exit_status}}))
            return 500, {"error": {"message": "CUDA error"}}

        server.answers["/v1/chat/completions"] = ends
    (home / NAME / "llama-server.log").write_text(f"x starting {found.launch.id}\n{log}")
    return found


def refused(home: Path, value: Record) -> str:
    with pytest.raises(prove.GateFailed) as error:
        prove.prove(place(home), value, 5, {})
    return str(error.value)


def test_a_release(home: Path, server: Server) -> None:
    value = record(home, server)
    release = prove.prove(place(home), value, 5, {})
    assert (release.completion["gate"], release.completion["prompt_tokens"]) == ("full", 10)
    assert (release.setup, release.gpus) == (value.setup, None)


def test_the_gate_of_the_record_says_how_much(home: Path, server: Server) -> None:
    value = record(home, server, gate=Gate("health"))
    assert prove.prove(place(home), value, 5, {}).completion["gate"] == "health"
    assert server.bodies("/v1/chat/completions") == []


def test_each_problem_is_a_line(home: Path, server: Server) -> None:
    params = changed(server.answers["/props"], "default_generation_settings", "params", "temperature", to=0.5)
    server.answers["/props"] = changed(params, "default_generation_settings", "n_ctx", to=512)
    lines = refused(home, record(home, server, log=f"{NO_GPU}\n")).split("\n")
    assert lines[0].startswith("Failed at the proof: The server samples with temperature 0.5")
    assert lines[1].startswith("A slot holds 512 tokens")
    assert len(lines) == 2
    assert all(line.endswith(".") for line in lines)


def test_a_server_that_ended_meanwhile_and_what_its_log_says(home: Path, server: Server) -> None:
    said = refused(home, record(home, server, log="CUDA error: unspecified launch failure\n", exit_status=134))
    assert said.startswith("Failed at the proof: /v1/chat/completions returned HTTP 500 instead of 200: ")
    assert "\nThe server's log shows: A GPU failed while llama-server used it." in said


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """Two GPUs, made up; process 7 is the instance's and is on the first one."""
    found = [Gpu(0, uuid="GPU-0", processes=(GpuProcess(7, 100, None, None),)), Gpu(1, uuid="GPU-1")]
    monkeypatch.setattr(gpu, "read_gpus", lambda: found)
    monkeypatch.setattr(gpus, "pids_of", lambda value: frozenset({7}))
    return found


def on(home: Path, server: Server, *uuids: str, log: str = "") -> Record:
    return record(home, server, log, None, None, *uuids)


@pytest.mark.usefixtures("cards")
def test_on_its_gpu(home: Path, server: Server) -> None:
    (row,) = prove.prove(place(home), on(home, server, "GPU-0"), 5, {}).gpus or ()
    assert (row["uuid"], row["asked"], row["held"]) == ("GPU-0", True, 100)


@pytest.mark.usefixtures("cards")
def test_on_the_cpu_is_said_with_what_the_log_knows(home: Path, server: Server, cards: list[Gpu]) -> None:
    cards[0] = Gpu(0, uuid="GPU-0")
    lines = refused(home, on(home, server, "GPU-0", log=f"{NO_GPU}\n")).split("\n")
    assert lines[0].startswith("Failed at the proof: The server runs on the CPU")
    assert lines[1].startswith("The server's log shows: The container has no GPU")


def test_gpus_that_cannot_be_seen(home: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(error: gpu.NvmlUnavailable) -> None:
        def read() -> list[Gpu]:
            raise error

        monkeypatch.setattr(gpu, "read_gpus", read)

    broken(gpu.NvmlUnavailable("the driver does not answer"))
    said = refused(home, on(home, server, "GPU-0"))
    assert said.endswith(": Whether the server uses its GPUs cannot be checked: the driver does not answer.")
    broken(gpu.PynvmlMissing("no library"))
    assert prove.prove(place(home), on(home, server, "GPU-0"), 5, {}).gpus is None
