# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's fake libnvidia-ml, as the real nvidia-ml-py and the lab's nvidia-smi see it.

This proves the management path (what is read about GPUs), not CUDA: nothing computes on these GPUs.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "lab" / "gpu"
MIB = 1024 * 1024


def gpu0(used: int = 0, mig: int = 0, ecc: int = 1, mode: int = 0, rc: int = 0) -> str:
    head = "gpu 0 GPU-0f5a1c00-fa4e-4e56-8d4c-000000000000 00000000:1A:00.0 143771 625"
    return f"{head} {used} 0 {mig} {ecc} {mode} {rc} NVIDIA H200 NVL"


# What the tests ask, run in an interpreter of its own: the dynamic loader reads LD_LIBRARY_PATH only at its start.
READER = """
import json, pynvml as n

def ask(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except n.NVMLError as error:
        return f"error {error.value}"

n.nvmlInit()
gpus = []
for index in range(n.nvmlDeviceGetCount()):
    h = ask(n.nvmlDeviceGetHandleByIndex, index)
    if isinstance(h, str):
        gpus.append({"handle": h})
        continue
    memory = n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
    gpus.append({
        "name": n.nvmlDeviceGetName(h), "uuid": n.nvmlDeviceGetUUID(h), "bus": n.nvmlDeviceGetPciInfo(h).busId,
        "memory": [memory.total, memory.reserved, memory.used, memory.free],
        "processes": [[p.pid, p.usedGpuMemory] for p in n.nvmlDeviceGetComputeRunningProcesses(h)],
        "mig": ask(n.nvmlDeviceGetMigMode, h), "ecc": ask(n.nvmlDeviceGetEccMode, h),
        "mode": n.nvmlDeviceGetComputeMode(h), "util": n.nvmlDeviceGetUtilizationRates(h).gpu,
        "corrected": ask(n.nvmlDeviceGetTotalEccErrors, h, 0, 0),
        "uncorrected": ask(n.nvmlDeviceGetTotalEccErrors, h, 1, 0),
        "remapped": ask(n.nvmlDeviceGetRemappedRows, h),
        "recovery": n.nvmlDeviceGetFieldValues(h, [n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])[0].value.uiVal,
        "links": [ask(n.nvmlDeviceGetNvLinkState, h, link) for link in range(19)],
    })
h = [n.nvmlDeviceGetHandleByIndex(i) for i in range(2)] if all("name" in g for g in gpus[:2]) and gpus else []
print(json.dumps({
    "gpus": gpus, "driver": n.nvmlSystemGetDriverVersion(), "cuda": n.nvmlSystemGetCudaDriverVersion_v2(),
    "nvlink": n.nvmlDeviceGetP2PStatus(h[0], h[1], 2) if h else None,
    "pcie": n.nvmlDeviceGetP2PStatus(h[0], h[1], 0) if h else None,
}, default=bytes.decode))
"""


class Lab:
    """A host with the fake library: write its state, then read it as a program on that host does."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.state = folder / "fakenvml.state"
        self.environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKENVML_STATE": str(self.state)}

    def write(self, *lines: str) -> None:
        self.state.write_text("".join(f"{line}\n" for line in lines))

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def read(self) -> dict:
        ran = self.run(sys.executable, "-c", READER)
        if ran.returncode:
            pytest.fail(ran.stderr)
        return json.loads(ran.stdout)

    def init_error(self) -> str:
        return self.run(sys.executable, "-c", "import pynvml; pynvml.nvmlInit()").stderr.splitlines()[-1]

    def smi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, str(LAB / "nvidia-smi"), *arguments)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fakenvml")
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *strict, "-o", str(folder / "libnvidia-ml.so.1"), str(LAB / "fakenvml.c")], check=True)
    return folder


@pytest.fixture
def lab(tmp_path: Path, library: Path) -> Lab:
    return Lab(tmp_path, library)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str | None], int]]:
    """Starts a real process named llama-server with the given CUDA_VISIBLE_DEVICES; ends those that it started."""
    program = tmp_path / "llama-server"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    started = []

    def start(visible: str | None) -> int:
        environment = {"PATH": "/usr/bin"} if visible is None else {"PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": visible}
        started.append(subprocess.Popen([str(program), "600"], env=environment))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_without_a_state_file_there_are_four_h200(lab: Lab) -> None:
    read = lab.read()
    assert read["driver"] == "590.48.01"
    assert read["cuda"] == 13010
    assert [gpu["name"] for gpu in read["gpus"]] == ["NVIDIA H200 NVL"] * 4
    assert len({gpu["uuid"] for gpu in read["gpus"]}) == 4
    assert [gpu["bus"] for gpu in read["gpus"]] == sorted(gpu["bus"] for gpu in read["gpus"])
    total, reserved, used, free = read["gpus"][0]["memory"]
    assert (total, reserved, free) == (143771 * MIB, 625 * MIB, total - reserved - used)
    assert used < total  # the default is auto rss, so servers that run on this machine count
    assert (read["gpus"][3]["mig"], read["gpus"][3]["ecc"], read["gpus"][3]["mode"]) == ([0, 0], [1, 1], 0)
    assert read["gpus"][0]["links"] == [1] * 18 + ["error 2"]
    assert (read["nvlink"], read["pcie"]) == (0, 0)


def test_memory_in_use_and_a_process_of_somebody_else(lab: Lab) -> None:
    lab.write(gpu0(used=140000), "proc 0 4242 100000", "proc 0 4343 40000")
    read = lab.read()["gpus"]
    assert read[0]["memory"] == [143771 * MIB, 625 * MIB, 140000 * MIB, 3146 * MIB]
    assert read[0]["processes"] == [[4242, 100000 * MIB], [4343, 40000 * MIB]]
    assert read[1]["processes"] == []


def test_the_file_is_read_again_at_every_call(lab: Lab) -> None:
    lab.write(gpu0(used=100))
    script = f"""
import pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
print(n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2).used)
open({str(lab.state)!r}, "w").write({gpu0(used=300)!r} + "\\n")
print(n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2).used)
open({str(lab.state)!r}, "w").write({gpu0(rc=15)!r} + "\\n")
n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
"""
    ran = lab.run(sys.executable, "-c", script)
    assert ran.stdout.split() == [str(100 * MIB), str(300 * MIB)]
    assert ran.stderr.splitlines()[-1].startswith("pynvml.NVMLError_GpuIsLost")


def test_a_lost_gpu_is_lost_alone(lab: Lab) -> None:
    lab.write(gpu0(rc=15))
    read = lab.read()["gpus"]
    assert read[0] == {"handle": "error 15"}
    assert [gpu.get("name") for gpu in read[1:]] == ["NVIDIA H200 NVL"] * 3


@pytest.mark.parametrize(
    ("code", "name"),
    [(9, "DriverNotLoaded"), (18, "LibRmVersionMismatch"), (4, "NoPermission"), (999, "Unknown")],
)
def test_init_fails_as_told(lab: Lab, code: int, name: str) -> None:
    lab.write(f"init_rc {code}")
    assert lab.init_error().startswith(f"pynvml.NVMLError_{name}")


def test_mig_compute_mode_ecc_and_links(lab: Lab) -> None:
    lab.write(gpu0(mig=1, mode=3), "errors 0 7 2 1", "nolink 0 1", gpu0(mig=1, mode=3).replace("gpu 0", "gpu 3"))
    read = lab.read()
    assert (read["gpus"][0]["mig"], read["gpus"][0]["mode"]) == ([1, 1], 3)
    assert [read["gpus"][0][key] for key in ("corrected", "uncorrected", "recovery")] == [7, 2, 1]
    assert read["gpus"][0]["links"][:18] == [1] * 12 + [0] * 6
    assert (read["nvlink"], read["pcie"]) == (5, 0)


def test_mig_and_ecc_where_the_gpu_has_neither(lab: Lab) -> None:
    lab.write(gpu0(mig=-1, ecc=-1))
    read = lab.read()["gpus"][0]
    assert [read[key] for key in ("mig", "ecc", "corrected")] == ["error 3"] * 3


@pytest.mark.parametrize(("line", "gpus"), [("count 0", 0), ("count 2", 2), (gpu0().replace("gpu 0", "gpu 5"), 6)])
def test_number_of_gpus(lab: Lab, line: str, gpus: int) -> None:
    lab.write(line)
    assert len(lab.read()["gpus"]) == gpus


@pytest.mark.parametrize(
    "line", ["gpu 0 GPU-x", "gpu 16" + gpu0()[5:], "proc 99 1 1", "count 17", "nonsense", "auto", "auto -1"]
)
def test_a_line_that_is_not_understood_is_an_error_and_named(lab: Lab, line: str) -> None:
    lab.write("driver 1.2", line)
    ran = lab.run(sys.executable, "-c", "import pynvml; pynvml.nvmlInit()")
    assert "line 2 is not understood" in ran.stderr
    assert "NVMLError_Unknown" in ran.stderr


@pytest.mark.parametrize(
    ("visible", "on"),
    [
        ("1,3", [1, 3]),
        ("GPU-2f5a1c00-fa4e-4e56-8d4c-000000000002,GPU-0f5a", [0, 2]),
        ("0,7,1", [0]),
        ("", []),
        (None, [0, 1, 2, 3]),
    ],
)
def test_auto_lists_a_real_llama_server_where_its_environment_says(
    lab: Lab, server: Callable[[str | None], int], visible: str | None, on: list[int]
) -> None:
    lab.write("auto 4600")
    pid = server(visible)
    read = lab.read()["gpus"]
    # Other servers may start and end on this machine meanwhile, so only ours is looked for.
    assert [index for index, gpu in enumerate(read) if [pid, 4600 * MIB] in gpu["processes"]] == on
    for index in on:
        assert read[index]["memory"][2] >= 4600 * MIB


def test_auto_rss_is_what_the_process_really_holds(lab: Lab, server: Callable[[str | None], int]) -> None:
    lab.write("auto rss")
    pid = server("0,2")
    found = [dict(gpu["processes"]).get(pid) for gpu in lab.read()["gpus"]]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    held = 512 * MIB + pages * os.sysconf("SC_PAGE_SIZE") // MIB // 2 * MIB
    assert found == [held, None, held, None]


def test_auto_off_is_a_server_on_the_cpu(lab: Lab, server: Callable[[str | None], int]) -> None:
    server("0,2")
    lab.write("auto 4600", "auto off", "proc 1 4242 5")
    assert [[p for p, dummy in gpu["processes"]] for gpu in lab.read()["gpus"]] == [[], [4242], [], []]


def test_remapped_rows(lab: Lab) -> None:
    lab.write("remapped 1 1 2 1 0", gpu0(ecc=-1))
    assert [gpu["remapped"] for gpu in lab.read()["gpus"][:3]] == ["error 3", [1, 2, 1, 0], [0, 0, 0, 0]]


def test_auto_ignores_a_process_that_only_mentions_llama_server(lab: Lab) -> None:
    lab.write("auto 4600")
    other = subprocess.Popen(["sleep", "600"], env={"PATH": "/usr/bin:/bin", "NAME": "llama-server"})
    try:
        assert other.pid not in [process[0] for gpu in lab.read()["gpus"] for process in gpu["processes"]]
    finally:
        other.kill()
        other.wait()


def test_nvidia_smi_columns(lab: Lab) -> None:
    lab.write(gpu0(used=140000, mode=3), f"proc 0 {os.getpid()} 140000", "proc 0 999999999 1")
    query = "--query-gpu=index,uuid,name,memory.used,memory.total,utilization.gpu,compute_mode"
    rows = lab.smi(query, "--format=csv,noheader,nounits").stdout.splitlines()
    uuid = "GPU-0f5a1c00-fa4e-4e56-8d4c-000000000000"
    assert rows[0] == f"0, {uuid}, NVIDIA H200 NVL, 140000, 143771, 0, Exclusive_Process"
    assert len(rows) == 4
    with_units = lab.smi(query, "--format=csv").stdout.splitlines()
    assert with_units[0] == (
        "index, uuid, name, memory.used [MiB], memory.total [MiB], utilization.gpu [%], compute_mode"
    )
    assert with_units[1] == f"0, {uuid}, NVIDIA H200 NVL, 140000 MiB, 143771 MiB, 0 %, Exclusive_Process"
    apps = lab.smi("--query-compute-apps=pid,gpu_uuid,used_memory,process_name", "--format=csv,noheader")
    name = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    assert apps.stdout.splitlines() == [
        f"{os.getpid()}, {uuid}, 140000 MiB, {name}",
        f"999999999, {uuid}, 1 MiB, [Not Found]",
    ]
    assert "the lab's fake" in lab.smi().stdout


def test_nvidia_smi_errors_are_the_real_tools(lab: Lab) -> None:
    unknown = lab.smi("--query-gpu=index,memory.usd", "--format=csv")
    assert (unknown.returncode, unknown.stdout.strip()) == (2, 'Field "memory.usd" is not a valid field to query.')
    lab.write(gpu0(rc=15))
    lost = lab.smi("--query-gpu=index", "--format=csv")
    assert lost.returncode == 15
    assert "GPU0: GPU is lost" in lost.stdout
    lab.write("init_rc 18")
    mismatch = lab.smi()
    assert mismatch.returncode == 18
    assert "Driver/library version mismatch" in mismatch.stdout
    lab.write("init_rc 9")
    assert lab.smi("-L").returncode == 9


@pytest.mark.skipif(ctypes.util.find_library("nvidia-ml") is not None, reason="this machine has the library")
def test_nvidia_smi_without_the_library() -> None:
    found = subprocess.run(
        [sys.executable, str(LAB / "nvidia-smi")], capture_output=True, text=True, check=False, env={"PATH": "/usr/bin"}
    )
    assert found.returncode == 12
    assert "couldn't find libnvidia-ml.so" in found.stdout
