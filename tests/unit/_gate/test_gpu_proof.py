# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server is on its GPUs. No GPU is needed: what NVML would say is written down in each test."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.gpu_proof import compare
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.read import Gpu, GpuProcess

MIB = 1 << 20
ASKED = ("GPU-0", "GPU-1")
OURS = frozenset({11, 12})


def gpus(*held: int | None, pid: int = 11) -> list[Gpu]:
    """Three GPUs with so many MiB of process ``pid`` on each; None: it is not there."""
    return [
        Gpu(
            index=index,
            uuid=f"GPU-{index}",
            processes=(
                GpuProcess(99, MIB, "ann", "x"),
                *([] if mib is None else [GpuProcess(pid, mib * MIB, "me", "s")]),
            ),
        )
        for index, mib in enumerate(held)
    ]


def plan(*need: int, source: str = "llama-fit-params", adapts: bool = False) -> dict[str, Any]:
    rows = [{"uuid": f"GPU-{index}", "need": mib * MIB} for index, mib in enumerate(need)]
    return {"gpus": rows, "source": source, "adapts": adapts}


def test_it_is_where_it_should_be() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6100, 5900, None), OURS)
    assert proof.problems == ()
    assert proof.rows == (
        {"gpu": 0, "uuid": "GPU-0", "asked": True, "planned": 6000 * MIB, "held": 6100 * MIB},
        {"gpu": 1, "uuid": "GPU-1", "asked": True, "planned": 6000 * MIB, "held": 5900 * MIB},
    )


def test_on_the_cpu_in_these_words() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000, 6000, None, pid=13), OURS)
    assert proof.problems == ("it runs on the CPU: no process of it is on GPU 0, 1",)


def test_on_one_of_two() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000, None, None), OURS)
    assert proof.problems == ("no process of it is on GPU 1, which it was given",)


def test_on_one_that_was_not_asked_for() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000, 6000, 300), OURS)
    assert proof.problems == ("it is on GPU 2 (GPU-2) too, which was not asked for",)
    assert proof.rows[2]["held"] == 300 * MIB


def test_a_server_for_the_cpu_is_on_none() -> None:
    assert compare(plan(), (), gpus(None, None, None), OURS).problems == ()
    assert compare(plan(), (), gpus(1, None, None), OURS).problems != ()


def test_a_gpu_that_was_lost_meanwhile() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000), OURS)
    assert proof.problems == ("the GPU GPU-1, which was asked for, does not answer any more",)


@pytest.mark.parametrize(
    ("planned", "held", "source", "good"),
    [
        (6000, 6890, "llama-fit-params", True),
        (6000, 6910, "llama-fit-params", False),
        (6000, 5090, "llama-fit-params", False),
        # CUDA's own part is flat: a small model may be further away.
        (1000, 1510, "llama-fit-params", True),
        (1000, 1520, "llama-fit-params", False),
        (6000, 3010, "estimate", True),
        (6000, 2990, "estimate", False),
    ],
)
def test_how_far_from_the_plan(planned: int, held: int, source: str, good: bool) -> None:
    proof = compare(plan(planned, source=source), ASKED[:1], gpus(held), OURS)
    assert (proof.problems == ()) is good
    if not good:
        assert f"it holds {held} MiB on GPU 0, and {planned} MiB were planned ({source})" in proof.problems[0]


def test_where_llama_server_may_take_less_only_its_presence_counts() -> None:
    assert compare(plan(6000, 6000, adapts=True), ASKED, gpus(600, 600), OURS).problems == ()
    assert compare(None, ASKED, gpus(600, 600), OURS).problems == ()
    assert compare(None, ASKED, gpus(600, None), OURS).problems != ()


def test_a_gpu_that_gets_nothing_by_plan_needs_no_process() -> None:
    assert compare(plan(6000, 0), ASKED, gpus(6000, None), OURS).problems == ()


def test_memory_that_nvml_does_not_tell_is_not_compared() -> None:
    hidden = [Gpu(index=0, uuid="GPU-0", processes=(GpuProcess(11, None, None, None),))]
    assert compare(plan(6000), ASKED[:1], hidden, OURS).problems == ()


def test_two_processes_of_it_on_one_gpu_count_together() -> None:
    both = (GpuProcess(11, 4000 * MIB, None, None), GpuProcess(12, 2000 * MIB, None, None))
    assert compare(plan(6000), ASKED[:1], [Gpu(index=0, uuid="GPU-0", processes=both)], OURS).problems == ()
