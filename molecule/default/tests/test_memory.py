# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's own llama-fit-params, asked on the host for what was deployed, and the estimate beside it.

The image knows only the CPU. With four of ggml's RPC servers on loopback its tool prints a line for each of four
devices, in the form of a CUDA build. So what is proven is how the tool is asked and understood, not what CUDA takes.
"""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf import file as gguf
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory import estimate as memory_estimate
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory import fit_params
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory import options as memory_options
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.launch import Launch

MIB = 1 << 20
PORTS = range(50050, 50054)
RPC = ["--rpc", ",".join(f"127.0.0.1:{port}" for port in PORTS)]
# More than the header of the lab's model.
HEADER = 8 << 20

Ask = Callable[..., fit_params.DeviceTable]


@pytest.fixture(scope="module")
def run(instance):
    def on_host(argv: Sequence[str]) -> tuple[int, str, str]:
        # ssh has no exit status for a command that a signal ends, and the shell has one.
        done = instance.login.run(f"{shlex.join(argv)}; exit $?")
        return done.rc, done.stdout, done.stderr

    return on_host


@pytest.fixture(scope="module")
def launch(instance) -> Launch:
    """The deployed command line."""
    value = instance.record()
    return Launch.from_json(value["launch"], value["spec"]["image"])


@pytest.fixture(scope="module")
def ask(launch: Launch, run) -> Ask:
    """Run the tool for the deployed command line with more arguments."""

    def answer(*more: str) -> fit_params.DeviceTable:
        return fit_params.ask(launch.container, launch.server, [*launch.arguments, *more], 4, run)

    return answer


@pytest.fixture(scope="module")
def devices(launch: Launch, instance, host) -> Iterator[None]:
    """Four RPC servers from the image."""
    server = launch.server.rpartition("/")[0] + "/ggml-rpc-server"
    pids = []
    for port in PORTS:
        command = [*launch.container, server, "-H", "127.0.0.1", "-p", str(port)]
        pids.append(instance.login.check_output(f"{shlex.join(command)} > /dev/null 2>&1 & echo $!"))
    deadline = time.monotonic() + 30
    for port in PORTS:
        while host.run(f"ss -Hltn sport = :{port}").stdout == "":
            assert time.monotonic() < deadline, f"no RPC server on port {port}"
            time.sleep(0.2)
    yield
    host.run(f"kill {' '.join(pids)}")


@pytest.fixture(scope="module")
def parts(instance, host, tmp_path_factory: pytest.TempPathFactory) -> list[gguf.Gguf]:
    """The header of the deployed model."""
    path: Path = tmp_path_factory.mktemp("model") / "header.gguf"
    model = instance.record()["spec"]["model"]
    path.write_bytes(base64.b64decode(host.check_output("head -c %s %s | base64 -w0", str(HEADER), model)))
    return [gguf.read(str(path))]


def test_this_image_sees_no_gpu(ask: Ask, instance) -> None:
    answer = ask()
    assert [device.name for device in answer.devices] == ["Host"]
    # 22.5 KiB of cache a token.
    assert answer.devices[0].context // MIB == instance.record()["spec"]["context_size"] * 22.5 // 1024


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize("more", [[], ["-ts", "3,1,0,0"], ["-ctk", "q8_0", "-ctv", "q8_0"], ["-ub", "256"]])
def test_four_devices_and_the_estimate_of_them(
    ask: Ask, parts: list[gguf.Gguf], more: list[str], launch: Launch
) -> None:
    answer = ask(*RPC, *more)
    assert [device.name for device in answer.devices] == ["RPC0", "RPC1", "RPC2", "RPC3", "Host"]

    options = memory_options.parse([*launch.arguments, *more], {})
    guessed = memory_estimate.estimate(parts, options, [1 << 30] * 4)

    # The tool rounds to MiB, down.
    assert [one.model // MIB for one in guessed] == [device.model // MIB for device in answer.devices]
    assert [one.context // MIB for one in guessed[:4]] == [device.context // MIB for device in answer.devices[:4]]
    for one, device in zip(guessed[:4], answer.devices[:4], strict=True):
        assert one.compute >= device.compute


@pytest.mark.usefixtures("devices")
def test_one_device_of_four(ask: Ask) -> None:
    answer = ask(*RPC, "-sm", "none", "-mg", "2")
    assert [device.name for device in answer.devices] == ["RPC2", "Host"]


def test_a_newer_options_name_does_not_keep_the_tool_from_answering(ask: Ask) -> None:
    assert len(ask("--of-tomorrow", "3").devices) == 1


def test_a_model_that_is_cut_short_is_refused_in_llama_cpps_own_words(launch: Launch, instance, run, host) -> None:
    model, cut = instance.record()["spec"]["model"], "/data/models/cut.gguf"
    host.check_output("head -c 5000000 %s > %s", model, cut)
    try:
        arguments = [word.replace(model.rpartition("/")[2], "cut.gguf") for word in launch.arguments]
        answer = fit_params.ask(launch.container, launch.server, arguments, 4, run)
    finally:
        host.check_output("rm %s", cut)
    assert "data is not within the file bounds" in answer.refused
