# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NvmlReading and choosing GPUs, against the lab's fake libnvidia-ml and the real nvidia-ml-py.

This proves the management path (what is read about GPUs), not CUDA: nothing computes on these GPUs.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import errors as nvml_errors
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import nvml
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import read as gpu
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.select import resolve
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem

SOURCE = Path(__file__).parents[3] / "lab" / "gpu" / "fakenvml.c"
MIB = 1024 * 1024
BUSES = ("1A", "3D", "9C", "DE")

Write = Callable[..., None]


def line(
    index: int, bus: str = "", used: int = 0, mig: int = 0, ecc: int = 1, mode: int = 0, rc: int = 0, util: int = 0
) -> str:
    uuid = f"GPU-{index}f5a1c00-fa4e-4e56-8d4c-00000000000{index}"
    address = f"00000000:{bus or BUSES[index]}:00.0"
    return f"gpu {index} {uuid} {address} 143771 625 {used} {util} {mig} {ecc} {mode} {rc} NVIDIA H200 NVL"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("fakenvml") / "libnvidia-ml.so.1")
    subprocess.run(["gcc", "-std=c11", "-Werror", "-shared", "-fPIC", "-o", path, str(SOURCE)], check=True)
    return path


@pytest.fixture
def host(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A host with the fake library, without any GPU on this machine's PCI bus; called with the lines of its state file.

    Only the child that reads the GPUs loads the library, so nothing of it stays in this process.
    """
    state = tmp_path / "state"
    monkeypatch.setenv("FAKENVML_STATE", str(state))
    monkeypatch.setattr(pynvml, "CDLL", lambda name: ctypes.CDLL(library))
    monkeypatch.setattr(nvml, "library_present", lambda: True)
    monkeypatch.setattr(nvml_errors, "pci_gpus", lambda: 0)

    def write(*lines: str) -> None:
        state.write_text("".join(f"{text}\n" for text in lines))

    return write


def refusing(code: int) -> Callable[..., Any]:
    def function(*dummy: Any) -> Any:
        raise pynvml.NVMLError(code)

    return function


def test_four_gpus_with_everything_that_is_asked(host: Write) -> None:
    host(line(0, used=5124, util=97))
    reading = gpu.read()
    assert (reading.driver_version, reading.cuda_version) == ("590.48.01", "13.1")
    assert len(reading.gpus) == 4
    assert reading.gpus[0] == gpu.Gpu(
        index=0,
        uuid="GPU-0f5a1c00-fa4e-4e56-8d4c-000000000000",
        pci_bus_id="00000000:1A:00.0",
        name="NVIDIA H200 NVL",
        memory_total=143771 * MIB,
        memory_reserved=625 * MIB,
        memory_used=5124 * MIB,
        memory_free=138022 * MIB,
        utilization=97,
        compute_mode="default",
        mig=False,
        ecc=True,
        ecc_corrected=0,
        ecc_uncorrected=0,
        remapped_rows=0,
        remapping_pending=False,
        remapping_failed=False,
        recovery_action="none",
        nvlinks=18,
    )
    assert gpu.read_gpus() == list(reading.gpus)


def test_processes_with_owner_and_command(host: Write) -> None:
    argv = [sys.executable, "-c", "input()", "--api-key", "s3cret", "--token=s3cret", "--api-key-file", "/etc/key"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        host(f"proc 1 {child.pid} 4600", "proc 1 999999999 10")
        found = gpu.read_gpus()
    finally:
        child.communicate()
    ours, gone = found[1].processes
    assert (ours.pid, ours.memory) == (child.pid, 4600 * MIB)
    assert ours.user == subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    masked = "--api-key ******** --token=******** --api-key-file /etc/key"
    assert ours.command == f"{sys.executable} -c input() {masked}"
    assert gone == gpu.GpuProcess(pid=999999999, memory=10 * MIB, user=None, command=None)
    assert found[0].processes == ()


def test_states_that_decide_whether_a_gpu_can_be_used(host: Write) -> None:
    states = [line(0, mode=3), line(1, mode=2), line(2, mig=1), line(3, mig=-1, ecc=-1)]
    host(*states, "errors 0 7 2 1", "remapped 1 1 2 1 0")
    found = gpu.read_gpus()
    assert [one.compute_mode for one in found] == ["exclusive_process", "prohibited", "default", "default"]
    assert [one.mig for one in found] == [False, False, True, None]
    assert [one.ecc for one in found] == [True, True, True, None]
    assert [one.ecc_uncorrected for one in found] == [2, 0, 0, None]
    assert found[0].ecc_corrected == 7
    assert found[0].recovery_action == "gpu_reset"
    assert [one.remapped_rows for one in found] == [0, 3, 0, None]
    assert (found[1].remapping_pending, found[1].remapping_failed, found[0].remapping_pending) == (True, False, False)
    assert [one.error for one in found] == [None] * 4


def test_links(host: Write) -> None:
    host("nolink 0 3")
    links = {link.gpus: link for link in gpu.read().links}
    assert list(links) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert links[0, 1] == gpu.Link(gpus=(0, 1), nvlink=True, p2p=True, path="numa_node")
    assert links[0, 3] == gpu.Link(gpus=(0, 3), nvlink=False, p2p=True, path="system")
    assert [one.nvlinks for one in gpu.read_gpus()] == [12, 18, 18, 12]


def test_pci_order_where_nvml_has_another(host: Write) -> None:
    host("count 2", line(0, bus="9C", used=1), line(1, bus="1A", rc=0, used=2), "proc 1 999999999 5")
    found = gpu.read_gpus()
    assert [(one.index, one.pci_bus_id[9:11], one.memory_used // MIB) for one in found] == [(0, "1A", 2), (1, "9C", 1)]
    assert found[0].processes[0].memory == 5 * MIB


def test_memory_and_processes_alone(host: Write) -> None:
    host(*(line(index, used=5120, rc=15 * (index == 2)) for index in range(4)), "proc 1 999999999 5120")
    whole, brief = gpu.read_gpus(), gpu.read_memory()
    same = ("index", "uuid", "memory_total", "memory_used", "memory_free", "processes", "error")
    assert [[getattr(one, key) for key in same] for one in brief] == [
        [getattr(one, key) for key in same] for one in whole
    ]
    assert brief[1].processes[0].memory == 5120 * MIB
    assert brief[2].error and brief[0].nvlinks is None and whole[0].nvlinks == 18


def test_a_lost_gpu_loses_no_other(host: Write) -> None:
    host(line(2, rc=15))
    reading = gpu.read()
    assert [one.index for one in reading.gpus] == [0, 1, 2, 3]
    assert [bool(one.error) for one in reading.gpus] == [False, False, True, False]
    assert (reading.gpus[2].uuid, reading.gpus[2].memory_free) == ("", 0)
    assert reading.gpus[3].memory_free == 143146 * MIB
    assert str(reading.gpus[2].error).startswith("GPU 2 is lost")
    assert "Reboot the host" in str(reading.gpus[2].error)
    assert [link.gpus for link in reading.links] == [(0, 1), (0, 3), (1, 3)]


@pytest.mark.parametrize(
    ("code", "words"),
    [(16, "nvidia-smi --gpu-reset -i 1"), (4, "/dev/nvidia"), (13, "510 or newer"), (999, "Unknown Error (NVML 999)")],
)
def test_errors_of_one_gpu(host: Write, code: int, words: str) -> None:
    host(line(1, rc=code))
    found = gpu.read_gpus()
    assert words in str(found[1].error)
    assert str(found[1].error).count("GPU 1") == 1
    assert [one.error for one in found if one.index != 1] == [None] * 3


def test_a_gpu_that_fails_half_way_keeps_what_was_read(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    host(line(0, bus="F0"))
    real = pynvml.nvmlDeviceGetMemoryInfo

    def memory(handle: Any, version: int) -> Any:
        if pynvml.nvmlDeviceGetUUID(handle).startswith("GPU-0"):
            raise pynvml.NVMLError(15)
        return real(handle, version)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory)
    last = gpu.read_gpus()[3]
    assert (last.uuid[:5], last.name, last.memory_total) == ("GPU-0", "NVIDIA H200 NVL", 0)
    # NVML counts it as 0; its place is the fourth, and the sentence speaks of that.
    assert str(last.error).startswith("GPU 3 is lost")


@pytest.mark.parametrize("code", [3, 4, 13])
def test_values_that_a_driver_does_not_know_are_none(host: Write, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    host()
    for name in (
        "DeviceGetComputeMode",
        "DeviceGetMigMode",
        "DeviceGetEccMode",
        "DeviceGetTotalEccErrors",
        "DeviceGetRemappedRows",
        "DeviceGetUtilizationRates",
        "DeviceGetFieldValues",
        "DeviceGetNvLinkState",
        "DeviceGetP2PStatus",
        "DeviceGetTopologyCommonAncestor",
        "DeviceGetComputeRunningProcesses",
        "SystemGetDriverVersion",
        "SystemGetCudaDriverVersion_v2",
    ):
        monkeypatch.setattr(pynvml, f"nvml{name}", refusing(code))
    reading = gpu.read()
    assert (reading.driver_version, reading.cuda_version) == (None, None)
    one = reading.gpus[0]
    assert one.error is None
    assert one.memory_free == 143146 * MIB
    assert {one.compute_mode, one.mig, one.ecc, one.ecc_corrected, one.utilization, one.recovery_action} == {None}
    assert (one.nvlinks, one.processes, one.remapped_rows, one.remapping_failed) == (None, (), None, None)
    assert reading.links[0] == gpu.Link(gpus=(0, 1), nvlink=None, p2p=None, path=None)


def test_processes_that_start_between_nvmls_two_calls(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    host("count 1", "proc 0 999999999 5")
    real, answers = pynvml.nvmlDeviceGetComputeRunningProcesses, [refusing(7), refusing(7)]

    def processes(handle: Any) -> Any:
        return answers.pop()(handle) if answers else real(handle)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes)
    assert [found.pid for found in gpu.read_gpus()[0].processes] == [999999999]


@pytest.mark.parametrize(
    ("code", "words", "no_gpu"),
    [
        (9, "modprobe nvidia", True),
        (18, "library (590.48.01) do not match", False),
        (4, "ls -l /dev/nvidia*", False),
        (17, "PrivateDevices=", False),
        (999, "nvidia-modprobe", False),
        (3, "Not Supported (NVML 3)", False),
    ],
)
def test_errors_of_the_driver(host: Write, code: int, words: str, no_gpu: bool) -> None:
    host(f"init_rc {code}")
    with pytest.raises(gpu.NvmlUnavailable) as caught:
        gpu.read()
    assert words in str(caught.value)
    assert (caught.value.code, caught.value.no_gpu) == (code, no_gpu)


def test_gpus_without_a_driver_are_not_called_a_host_without_gpus(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    host("init_rc 9")
    monkeypatch.setattr(nvml_errors, "pci_gpus", lambda: 4)
    with pytest.raises(gpu.NvmlUnavailable, match="4 NVIDIA GPUs are on its PCI bus") as caught:
        gpu.read()
    assert not caught.value.no_gpu


def test_a_host_without_the_library(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "library_present", lambda: False)
    # The Python library is not needed to say so.
    monkeypatch.setattr(nvml, "pynvml", None)
    with pytest.raises(gpu.NvmlUnavailable, match=r"no libnvidia-ml\.so\.1.*no NVIDIA GPU is on its PCI bus") as caught:
        gpu.read()
    assert (caught.value.code, caught.value.no_gpu) == (12, True)


def test_the_python_library_is_missing(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", None)
    with pytest.raises(gpu.PynvmlMissing, match="nvidia-ml-py"):
        gpu.read()


def test_a_driver_without_a_gpu(host: Write) -> None:
    host("count 0")
    assert gpu.read() == gpu.NvmlReading(gpus=(), links=(), driver_version="590.48.01", cuda_version="13.1")


def test_a_driver_that_hangs_is_abandoned(host: Write) -> None:
    host("hang 600")
    with pytest.raises(gpu.NvmlUnavailable, match=r"did not answer within 0\.2 s") as caught:
        gpu.read(timeout=0.2)
    assert caught.value.code is None
    # The child was ended and collected: there is none to wait for.
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_crash_inside_the_library(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "query", lambda facts: os.abort())
    with pytest.raises(gpu.NvmlUnavailable, match="died inside NVIDIA's library"):
        gpu.read()


def test_our_own_bug_is_not_reported_as_one_of_the_driver(host: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "query", lambda facts: {"links": []}["gpus"])
    with pytest.raises(RuntimeError, match="KeyError: 'gpus'"):
        gpu.read()


def test_the_reader_holds_no_file_of_its_parent(host: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    def answer(facts: bool = True) -> dict[str, Any]:
        names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        held = [os.readlink(name) for name in names if os.path.islink(name)]
        return {"gpus": [], "links": [], "driver_version": " ".join(held), "cuda_version": None}

    monkeypatch.setattr(nvml, "query", answer)
    with lock.open("w"):
        assert str(lock) in answer()["driver_version"]
        assert str(lock) not in str(gpu.read().driver_version)


def test_gpus_on_the_pci_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("gpu", "0x10de", "0x030200"),
        ("audio", "0x10de", "0x040300"),
        ("vga", "0x1a03", "0x03"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "gone").mkdir()
    assert nvml_errors.pci_gpus(str(tmp_path)) == 1


UUIDS = ("GPU-0f5a1c00-fa4e", "GPU-0f5b2d11-fa4e", "GPU-8932f937-fa4e")
GPUS = [gpu.Gpu(index=index, uuid=uuid) for index, uuid in enumerate(UUIDS)]
LOST = gpu.Gpu(index=3, error=Problem("", "GPU 3 is lost", "Reboot it."))


@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        (["0", "1"], [0, 1]),
        (["2", "0"], [0, 2]),
        ([2, 0], [0, 2]),
        (["GPU-8932f937-fa4e"], [2]),
        (["gpu-8932F", " GPU-0f5b "], [1, 2]),
        ([], []),
    ],
)
def test_resolve(wanted: list[str], indexes: list[int]) -> None:
    found, problems = resolve(wanted, GPUS)
    assert ([one.index for one in found], problems) == (indexes, [])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("4", 'There is no GPU "4": this host has 0 (GPU-0f5a1c00-fa4e), 1 ('),
        ("-1", '"-1" is neither an index nor a UUID'),
        ("GPU-0f5", "the beginning of 2 GPUs' UUIDs (GPU-0f5a1c00-fa4e, GPU-0f5b2d11-fa4e). Write more"),
        ("GPU-", 'There is no GPU "GPU-"'),
        ("GPU-77", "It may be the one that does not answer: GPU 3 is lost"),
        ("MIG-1234", "is a MIG instance"),
        ("all", '"all" is neither an index nor a UUID'),
        ("", '"" is neither'),
        ("3", "GPU 3 is lost. Reboot it."),
    ],
)
def test_resolve_reports_what_is_wrong(wanted: str, words: str) -> None:
    problems = resolve([wanted], [*GPUS, LOST])[1]
    assert len(problems) == 1
    assert words in str(problems[0])


def test_resolve_reports_every_problem() -> None:
    found, problems = resolve(["0", "7", "GPU-0f5a", "GPU-0f", "1"], GPUS)
    assert [one.index for one in found] == [0, 1]
    assert len(problems) == 3
    assert 'GPU 0 is listed twice, as "0" and as "GPU-0f5a"' in str(problems[1])


def test_resolve_on_a_host_without_gpus() -> None:
    found, (problem,) = resolve(["0"], [])
    assert (found, str(problem)) == ([], 'There is no GPU "0": this host has none.')
