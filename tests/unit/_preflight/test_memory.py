# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an instance fits. No GPU is needed: what NVML and the image's tool would say is written down in each test.

The tool itself, and the shell before it, are tested in test_fit_params.py and on the lab's hosts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.read import Gpu, GpuProcess
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import memory
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight.gpus import Neighbour
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight.memory import HostMemory, MemoryCheck
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import launch
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import Record
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record, a_spec, found

MIB = 1 << 20
# A 30B mixture of experts on four GPUs, as a CUDA build prints it.
TABLE = "CUDA0 4608 846 300 \nCUDA1 4608 846 300 \nCUDA2 4608 846 300 \nCUDA3 4700 846 602 \nHost 170 0 32 \n"
ROOMY = HostMemory(200 << 30, 0)


def cards(*free: int, processes: Sequence[GpuProcess] = ()) -> list[Gpu]:
    return [
        Gpu(index=index, uuid=f"GPU-{index}", memory_free=mib * MIB, processes=tuple(processes))
        for index, mib in enumerate(free)
    ]


def says(out: str, code: int = 0, err: str = "") -> Callable[[Sequence[str]], tuple[int, str, str]]:
    return lambda argv: (code, out, err)


def look(
    gpus: Sequence[Gpu] = (),
    run: Any = None,
    ours: Sequence[int] = (),
    others: Sequence[Neighbour] = (),
    last: Record | None = None,
    host: HostMemory = ROOMY,
    **changes: Any,
) -> MemoryCheck:
    gpus = gpus or cards(140000, 140000, 140000, 140000)
    spec = a_spec(**{"gpus": [str(one.index) for one in gpus], **changes})
    on = found(gpus=tuple(one.uuid for one in gpus))
    start = launch.build(spec, on, state_file="/s", log=None)
    return memory.check_memory(
        spec,
        start,
        run or says(TABLE),
        gpus=gpus if spec.gpus else (),
        ours=frozenset(ours),
        others=others,
        last=last,
        host=host,
    )


def test_it_fits() -> None:
    fits = look()
    assert (fits.problems, fits.warnings, fits.source) == ((), (), "llama-fit-params")
    first = fits.rows[0]
    assert (first["gpu"], first["uuid"], first["need"]) == (0, "GPU-0", (4608 + 846 + 300 + 512) * MIB)
    assert first["left"] == (140000 - 6266) * MIB
    assert (fits.rows[3]["model"], fits.rows[3]["compute"], fits.rows[3]["margin"]) == (4700 * MIB, 602 * MIB, 0)
    assert fits.record is not None
    assert (fits.record["host"]["model"], fits.record["host"]["cache_ram"]) == (170 * MIB, 8192 * MIB)


def test_a_gib_has_to_stay_free() -> None:
    enough = 6266 + 1024
    assert look(cards(enough, 9000, 9000, 9000)).problems == ()
    short = look(cards(enough - 1, 9000, 9000, 9000))
    assert str(short.problems[0]) == (
        "memory: it does not fit on GPU 0 (1 MiB too little): it needs 6266 MiB (model 4608, context 846, compute 300, "
        "cuda 512) and 1024 to spare, of 7289 MiB free. These figures are from the image's own llama-fit-params. Use "
        "more or other GPUs, a smaller context_size or a smaller cache (-ctk q8_0 and -ctv q8_0 in args), or end what "
        "else uses these GPUs."
    )
    assert not short.problems[0].may_pass


def test_of_a_large_instance_five_percent_have_to_stay_free() -> None:
    table = says("CUDA0 99488 0 0 \nHost 0 0 0 \n")
    assert look(cards(105000), table).problems == ()
    assert "(1 MiB too little)" in look(cards(104999), table).problems[0].text


def test_all_gpus_are_named_at_once() -> None:
    (problem,) = look(cards(100, 140000, 3000, 140000)).problems
    assert "GPU 0 (7190 MiB too little): it needs" in problem.text
    assert "of 100 MiB free; GPU 2 (4290 MiB too little): it needs" in problem.text
    assert "GPU 1" not in problem.text


def test_what_the_old_server_gives_back_counts() -> None:
    processes = [GpuProcess(7, 6000 * MIB, None, None), GpuProcess(8, 100 * MIB, None, None)]
    full = cards(1700, 1700, 1700, 1700, processes=processes)
    assert look(full).problems != ()
    fits = look(full, ours=[7])
    assert fits.problems == ()
    assert fits.rows[0]["given_back"] == 6000 * MIB


def test_instances_that_are_declared_and_do_not_run_are_counted_in() -> None:
    tight = cards(10000, 10000, 10000, 10000)
    waiting = Neighbour("4402", ("GPU-1",), frozenset({5}), {"GPU-1": 6266 * MIB})
    (problem,) = look(tight, others=[waiting]).problems
    assert "GPU 1 (3556 MiB too little)" in problem.text
    assert "of 10000 MiB free - 6266 that other instances will take" in problem.text
    assert "GPU 0 (" not in problem.text
    assert "what the declared instances 4402 need is counted in" in problem.text
    # What it holds already is not free any more, and is not asked for twice.
    running = cards(10000, 10000, 10000, 10000, processes=[GpuProcess(5, 6266 * MIB, None, None)])
    assert look(running, others=[waiting]).problems == ()


def test_a_change_of_another_instance_may_end_it_only_if_that_frees_enough() -> None:
    """GPU 0 lacks 3556 MiB of the 6266 + 1024 that it needs."""
    needed = 6266 * MIB

    def problem(*others: Neighbour, processes: Sequence[GpuProcess] = (), free: int = 3734) -> Problem:
        (found,) = look(cards(free, 9000, 9000, 9000, processes=processes), others=others).problems
        return found

    held = [GpuProcess(5, 3556 * MIB, None, None)]
    runs = Neighbour("4402", ("GPU-0",), frozenset({5}))
    assert not problem().may_pass
    assert problem(runs, processes=held).may_pass
    assert not problem(runs, processes=held, free=3733).may_pass, "1 MiB is lacking even without it"
    assert not problem(processes=held).may_pass, "a process of no instance"
    assert problem(Neighbour("4402", ("GPU-0",), planned={"GPU-0": needed}), free=9000).may_pass, (
        "declared, not there yet"
    )
    changed = Neighbour("4402", ("GPU-0",), planned={"GPU-0": needed}, comes=True)
    assert not problem(changed, free=9000).may_pass, "what it takes after its change is counted already"


@pytest.mark.parametrize(("args", "layers"), [(["--fit on"], "auto"), ([], None)])
def test_where_llama_server_takes_less_by_itself_it_is_a_warning(args: list[str], layers: str | None) -> None:
    fits = look(cards(1, 1, 1, 1), args=args, gpu_layers=layers)
    assert fits.problems == ()
    assert "llama-server (--fit on) will use fewer GPU layers" in fits.warnings[0]
    assert look(cards(1, 1, 1, 1), args=["--fit off"], gpu_layers=layers).problems != ()


def test_the_answer_is_remembered_for_this_launch_and_no_other() -> None:
    first = look()
    last = replace(a_record(), memory=json.loads(json.dumps(first.record)))

    def never(argv: Sequence[str]) -> tuple[int, str, str]:
        raise RuntimeError("a container was started")

    again = look(run=never, last=last)
    assert (again.rows, again.record) == (first.rows, first.record)
    with pytest.raises(RuntimeError, match="a container was started"):
        look(run=never, last=last, context_size=4096)
    # What another version wrote is asked for again.
    assert last.memory
    del last.memory["gpus"][0]["need"]
    with pytest.raises(RuntimeError, match="a container was started"):
        look(run=never, last=last)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_builder.model())
    return str(path)


def test_an_image_without_the_tool_gets_an_estimate_with_a_margin(model: str) -> None:
    fits = look(cards(9000, 9000), says("", 127), model=model, binds=[], context_size=4096)
    assert fits.source == "estimate"
    assert "memory: the image has no llama-fit-params. The memory that it needs is estimated" in fits.warnings[0]
    for row in fits.rows:
        asked = row["model"] + row["context"] + row["compute"]
        assert row["margin"] == int(asked * 0.15)
        assert row["need"] == asked + row["margin"] + 512 * MIB
    assert (
        look(cards(1000, 9000), says("", 127), model=model, binds=[]).problems[0].text.count("an estimate from the")
        == 1
    )


def test_an_image_that_sees_no_gpu_is_said_to_and_the_gpus_are_estimated(model: str) -> None:
    fits = look(cards(9000, 9000), says("Host 92 1440 117 \n"), model=model, binds=[])
    assert fits.source == "estimate"
    assert "sees no GPU (Host), so this image would run the model on the CPU" in fits.warnings[0]
    assert [row["need"] > 512 * MIB for row in fits.rows] == [True, True]
    assert fits.record is not None
    assert fits.record["host"]["context"] == 0, "what it would take without GPUs says nothing of a server with them"


def test_a_server_for_the_cpu_needs_no_gpu() -> None:
    fits = look(run=says("Host 92 1440 117 \n"), gpu_layers="0")
    cpu = memory.check_memory(
        a_spec(gpus=[]),
        launch.build(a_spec(gpus=[]), found(), state_file="/s", log=None),
        says("Host 92 1440 117 \n"),
        gpus=(),
        ours=frozenset(),
        others=(),
        last=None,
        host=ROOMY,
    )
    assert (cpu.source, cpu.rows, cpu.problems, cpu.warnings) == ("llama-fit-params", (), (), ())
    # With GPUs and no layer on them, they are of no use.
    assert "no part of the model is placed on GPU 0, 1, 2, 3" in fits.warnings[0]


def test_where_nvml_could_not_be_asked_nothing_is_said() -> None:
    spec = a_spec()
    start = launch.build(spec, found(), state_file="/s", log=None)
    empty = memory.check_memory(spec, start, says(TABLE), gpus=(), ours=frozenset(), others=(), last=None, host=ROOMY)
    assert empty == MemoryCheck()


def test_a_model_that_the_image_cannot_load_is_refused() -> None:
    fits = look(run=says("", 134, "0.0 E llama_model_load: error loading model: unknown model architecture: 'glm9'\n"))
    assert len(fits.problems) == 1
    assert fits.problems[0].option == "model"
    assert fits.problems[0].text.endswith("GLM-4.7-Flash-UD-Q4_K_XL.gguf: unknown model architecture: 'glm9'")
    assert fits.record is None


def test_one_gpu_of_four_by_split_mode() -> None:
    fits = look(run=says("CUDA2 18400 3384 700 \nHost 170 0 32 \n"))
    assert [row["need"] // MIB for row in fits.rows] == [0, 0, 18400 + 3384 + 700 + 512, 0]
    assert [row["short"] for row in fits.rows] == [0] * 4
    assert fits.warnings == ("memory: no part of the model is placed on GPU 0, 1, 3. Remove it from gpus.",)


def test_projector_and_draft_model_are_added(tmp_path: Path) -> None:
    for name, size in (("p.gguf", 100), ("d.gguf", 40)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * MIB)
    fits = look(binds=["/data/models:/models", f"{tmp_path}:/side"], args=["--mmproj /side/p.gguf", "-md /side/d.gguf"])
    assert [row["model"] // MIB for row in fits.rows] == [4608 + 100 + 10, 4608 + 10, 4608 + 10, 4700 + 10]
    assert "of the draft model /side/d.gguf only the weights are counted" in fits.warnings[0]
    gone = look(args=["--mmproj /side/p.gguf"])
    assert "memory: /side/p.gguf is not counted, because it is not on the host." in gone.warnings


def test_too_little_memory_on_the_host() -> None:
    run = says("CUDA0 1 1 1 \nHost 60000 4000 1000 \n")
    one = cards(140000)
    plenty, cache, must = 80000, 66000, 4999
    assert look(one, run, host=HostMemory(plenty * MIB, 0)).warnings == ()
    fits = look(one, run, host=HostMemory(cache * MIB, 0))
    assert fits.problems == ()
    assert (
        "it may take 73192 MiB of the host's memory (8192 of them for the prompts of earlier requests"
        in fits.warnings[0]
    )
    assert look(one, run, args=["--cache-ram 0"], host=HostMemory(cache * MIB, 0)).warnings == ()
    (problem,) = look(one, run, host=HostMemory(must * MIB, 0)).problems
    assert problem.text.startswith(
        "it takes 5000 MiB of the host's memory (context 4000, compute 1000, model 60000), and 4999 MiB are available"
    )
    assert not problem.may_pass
    assert look(one, run, host=HostMemory(must * MIB, 0, others=MIB)).problems[0].may_pass
    assert look(one, run, host=HostMemory((must - 1) * MIB, 2 * MIB)).problems == ()
    # What is pinned, or not mapped, has to be there as well.
    assert look(one, run, args=["--no-mmap"], host=HostMemory(64000 * MIB, 0)).problems != ()


def test_the_hosts_memory_is_that_of_this_machine() -> None:
    now = memory.host_memory(frozenset({os.getpid(), 2**22 + 1}), frozenset({os.getppid()}))
    assert now.available > 0
    assert 0 < now.given_back < now.available
    assert now.others > 0
