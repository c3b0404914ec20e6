# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs an instance gets, and why not. No GPU is needed: what NVML would say is written down in each test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import process
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import read as gpu
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import gpus
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight.gpus import Neighbour
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import Record
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_record, a_spec, with_launch

GIB = 1 << 30
MIB = 1 << 20


def card(index: int, *processes: gpu.GpuProcess, **changes: Any) -> gpu.Gpu:
    values: dict[str, Any] = {
        "uuid": f"GPU-{index}aaa",
        "name": "NVIDIA H200 NVL",
        "memory_total": 140 * GIB,
        "memory_free": 139 * GIB,
        "compute_mode": "default",
        "mig": False,
        "recovery_action": "none",
        "processes": processes,
    }
    return gpu.Gpu(index=index, **{**values, **changes})


def at(pid: int, memory: int | None = 5 * GIB, user: str | None = "ann", command: str | None = "train.py") -> Any:
    return gpu.GpuProcess(pid=pid, memory=memory, user=user, command=command)


FOUR = [card(index) for index in range(4)]
UUIDS = tuple(one.uuid for one in FOUR)


def look(
    reading: gpus.GpuReading,
    wanted: Sequence[str] = ("0", "1", "2", "3"),
    ours: Sequence[int] = (),
    others: Sequence[Neighbour] = (),
    last: Record | None = None,
    mps: bool = False,
) -> gpus.GpuCheck:
    spec = a_spec(gpus=list(wanted))
    return gpus.check_gpus(spec, reading, ours=frozenset(ours), others=others, last=last, mps=mps)


def test_indexes_and_uuids_become_uuids_in_pci_order() -> None:
    seen = look(FOUR, ["3", "GPU-1"])
    assert (seen.uuids, seen.problems, seen.warnings) == (("GPU-1aaa", "GPU-3aaa"), (), ())
    assert [one.index for one in seen.gpus] == [1, 3]


def test_without_gpus_nothing_is_asked() -> None:
    assert look(gpu.NvmlUnavailable("broken", 18), []) == gpus.GpuCheck()


def test_a_gpu_that_is_not_there_and_one_that_is_lost_at_once() -> None:
    lost = gpu.Gpu(index=2, error=gpu.errors.of_gpu(gpu.errors.GPU_IS_LOST, "", 2))
    seen = look([FOUR[0], FOUR[1], lost], ["0", "2", "7"])
    assert len(seen.problems) == 2
    assert str(seen.problems[0]).startswith("gpus: GPU 2 is lost")
    assert str(seen.problems[1]).startswith('gpus: There is no GPU "7": this host has 0 (GPU-0aaa)')


@pytest.mark.parametrize(
    ("code", "end"), [(18, "the driver does not match."), (12, "Without gpus the server runs on the CPU.")]
)
def test_a_driver_that_does_not_work_is_a_problem(monkeypatch: pytest.MonkeyPatch, code: int, end: str) -> None:
    monkeypatch.setattr(gpu.errors, "pci_gpus", lambda: 0)
    seen = look(gpu.NvmlUnavailable("the driver does not match", code), ["0"])
    assert str(seen.problems[0]).startswith("gpus: 0 cannot be used: the driver does not match.")
    assert str(seen.problems[0]).endswith(end)


def test_without_the_python_library_the_operators_words_stay_and_it_is_said() -> None:
    seen = look(gpu.PynvmlMissing("nvidia-ml-py is not installed"))
    assert (seen.uuids, seen.problems) == (None, ())
    assert seen.warnings == ("gpus: 0, 1, 2, 3 could not be checked. nvidia-ml-py is not installed.",)


def last_time(*uuids: str) -> Record:
    return with_launch(a_record(), gpus=uuids)


def test_without_the_python_library_what_was_resolved_once_stays() -> None:
    missing = gpu.PynvmlMissing("not installed")
    assert look(missing, last=last_time(*UUIDS)).uuids == UUIDS
    assert look(missing, ["0"], last=last_time(*UUIDS)).uuids is None
    assert look(missing, last=a_record()).uuids is None


def test_other_gpus_behind_the_same_words_are_noticed() -> None:
    seen = look(FOUR, last=last_time("GPU-gone", *UUIDS[:3]))
    assert seen.problems == ()
    assert "meant GPU-gone, GPU-0aaa, GPU-1aaa, GPU-2aaa when this instance was last deployed" in seen.warnings[0]
    assert look(FOUR, last=last_time(*UUIDS)).warnings == ()


def test_mig() -> None:
    seen = look([card(0, mig=True)], ["0"])
    assert str(seen.problems[0]).startswith("gpus: MIG is on for GPU 0 (GPU-0aaa)")
    assert "nvidia-smi -i 0 -mig 0" in seen.problems[0].remedy


def test_prohibited_lets_nobody_in() -> None:
    seen = look([card(0, compute_mode="prohibited")], ["0"], mps=True)
    assert "compute mode Prohibited" in seen.problems[0].text
    assert "nvidia-smi -i 0 -c DEFAULT" in seen.problems[0].remedy
    assert not seen.problems[0].may_pass


def test_exclusive_process_and_somebody_is_on_it() -> None:
    exclusive = [card(0, at(77), compute_mode="exclusive_process")]
    seen = look(exclusive, ["0"])
    assert "accepts one process (compute mode Exclusive_Process) and is used by pid 77 of ann (train.py)" in str(
        seen.problems
    )
    assert not seen.problems[0].may_pass
    # It is the instance itself; the rule is the driver's and MPS is the way round it.
    assert look(exclusive, ["0"], ours=[77]).problems == ()
    assert look(exclusive, ["0"], mps=True).problems == ()
    assert look([card(0, compute_mode="exclusive_process")], ["0"]).problems == ()


def test_exclusive_process_and_another_instance_is_declared_for_it() -> None:
    exclusive = [card(0, compute_mode="exclusive_process")]
    seen = look(exclusive, ["0"], others=[Neighbour("4402", ("GPU-0aaa",))])
    assert "is used by the instance 4402, which is declared for it" in seen.problems[0].text
    assert seen.problems[0].may_pass
    assert look(exclusive, ["0"], others=[Neighbour("4402", ("GPU-1aaa",))]).problems == ()
    running = [card(0, at(5), compute_mode="exclusive_process")]
    seen = look(running, ["0"], others=[Neighbour("4402", ("GPU-0aaa",), frozenset({5}))])
    assert seen.problems[0].text.endswith("is used by the instance 4402 (pid 5)")
    assert seen.problems[0].may_pass
    both = [card(0, at(5), at(77), compute_mode="exclusive_process")]
    (problem,) = look(both, ["0"], others=[Neighbour("4402", ("GPU-0aaa",), frozenset({5}))]).problems
    assert not problem.may_pass, "pid 77 stays, whatever happens to the instance"


def test_who_else_is_on_the_gpus_is_said_once_for_each_process() -> None:
    mps_server = at(9, command="/usr/bin/nvidia-cuda-mps-server -x")
    reading = [card(0, at(77), at(1), at(2), mps_server), card(1, at(77, None), at(8, user=None, command=None))]
    seen = look(reading, ["0", "1"], ours=[1], others=[Neighbour("4402", pids=frozenset({2}))])
    assert seen.problems == ()
    assert seen.warnings == (
        "gpus: pid 77 of ann (train.py) holds 5120 MiB on GPU 0, an unknown amount on GPU 1 and belongs to no "
        "instance of this home.",
        "gpus: pid 8 (a process that this user may not see) holds 5120 MiB on GPU 1 and belongs to no instance "
        "of this home.",
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"recovery_action": "gpu_reset"}, "the driver asks for this after an error (Xid): gpu reset"),
        ({"ecc_uncorrected": 3}, "3 uncorrectable memory errors since"),
        ({"remapping_pending": True}, "will be replaced at its next reset"),
        ({"remapping_pending": True, "remapping_failed": True}, "could not be replaced, so it needs service"),
    ],
)
def test_a_gpu_that_is_not_well_is_a_warning(state: dict[str, Any], words: str) -> None:
    seen = look([card(0, **state)], ["0"])
    assert seen.problems == ()
    assert words in seen.warnings[0]
    assert seen.warnings[0].startswith("gpus: GPU 0 (GPU-0aaa) has errors: ")


def test_the_processes_of_an_instance_are_those_below_its_runner(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(['sleep', '600'], check=False)"],
        stdin=subprocess.DEVNULL,
    )
    try:
        state = tmp_path / "running.json"
        value = replace(a_launch(), state_file=str(state))
        assert gpus.pids_of(value) == frozenset()
        account = {"runner_pid": os.getpid(), "runner_start": process.start_ticks(os.getpid())}
        state.write_text(json.dumps(account))
        assert parent.pid in gpus.pids_of(value)
        # The same pid with another start time is another process.
        state.write_text(json.dumps({**account, "runner_start": 1}))
        assert gpus.pids_of(value) == frozenset()
        state.write_text("{")
        assert gpus.pids_of(value) == frozenset()
        assert gpus.pids_of(None) == frozenset()
    finally:
        parent.kill()
        parent.wait()


def test_the_other_instances_of_the_home(tmp_path: Path) -> None:
    planned = {"gpus": [{"uuid": "GPU-9aaa", "need": 7}]}
    first = replace(with_launch(a_record(gpus=["1"]), gpus=("GPU-9aaa",)), memory=planned)
    second = with_launch(a_record(gpus=["0"]), gpus=None)
    for name, value in (("one", first), ("two", second), ("me", first)):
        (tmp_path / name).mkdir()
        store.write(str(tmp_path / name), value)
    assert gpus.neighbours(str(tmp_path), "me", FOUR) == [
        Neighbour("one", ("GPU-9aaa",), frozenset(), {"GPU-9aaa": 7}),
        Neighbour("two", ("GPU-0aaa",)),
    ]
    assert gpus.neighbours(str(tmp_path), "me", gpu.NvmlUnavailable("no"))[1] == Neighbour("two")


def test_mps_is_found_by_its_program(tmp_path: Path) -> None:
    if gpus.mps_runs():
        pytest.skip("NVIDIA's MPS really runs on this machine")
    program = tmp_path / "nvidia-cuda-mps-control"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    child = subprocess.Popen([str(program), "600"])
    try:
        deadline = time.monotonic() + 10
        while not gpus.mps_runs() and time.monotonic() < deadline:
            time.sleep(0.05)  # until it is the program, and not the copy of this process that becomes it
        assert gpus.mps_runs()
    finally:
        child.kill()
        child.wait()


def test_an_instance_that_comes_before_counts_as_it_will_be() -> None:
    """It was on GPU 0, and moves to GPU 1."""
    moves = Neighbour("4402", ("GPU-1aaa",), frozenset({5}), {"GPU-1aaa": 30 * GIB}, comes=True)
    exclusive = [card(0, at(5), compute_mode="exclusive_process"), card(1, compute_mode="exclusive_process")]
    assert look(exclusive, ["0"], others=[moves]).problems == ()
    (said,) = look(exclusive, ["1"], others=[moves]).problems
    assert "the instance 4402, which is declared for it" in said.text
    assert not said.may_pass, "it has changed by then"
    assert (moves.due(exclusive[0]), moves.due(exclusive[1])) == (-5 * GIB, 30 * GIB)
    stays = replace(moves, comes=False)
    assert (stays.due(exclusive[0]), stays.due(exclusive[1])) == (0, 30 * GIB)


def test_an_instance_that_comes_before_stands_for_its_record(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    store.write(str(tmp_path / "one"), a_record(name="one"))
    comes = Neighbour("one", ("GPU-1aaa",), comes=True)
    assert gpus.neighbours(str(tmp_path), "me", FOUR, [comes]) == [comes]
    assert gpus.neighbours(str(tmp_path), "one", FOUR, [comes]) == []
