# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server on its GPUs. What NVML would show is written in each test, so no GPU is needed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks.gpu_proof import GpuProof, compare
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.read import Gpu, GpuProcess

MIB = 1 << 20
ASKED = ("GPU-0", "GPU-1")
OURS = frozenset({11, 12})


def gpus(*held: int | None, pid: int = 11) -> list[Gpu]:
    """GPUs with so many MiB of process ``pid`` on each; None: the process does not use it."""
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


def texts(proof: GpuProof) -> list[str]:
    return [problem.text for problem in proof.problems]


def test_on_its_gpus() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6100, 5900, None), OURS)
    assert proof.problems == ()
    assert proof.rows == (
        {"gpu": 0, "uuid": "GPU-0", "asked": True, "planned": 6000 * MIB, "held": 6100 * MIB},
        {"gpu": 1, "uuid": "GPU-1", "asked": True, "planned": 6000 * MIB, "held": 5900 * MIB},
    )


def test_on_the_cpu() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000, 6000, None, pid=13), OURS)
    assert texts(proof) == ["The server runs on the CPU: none of its processes is on GPU 0, 1"]


def test_on_one_of_two() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000, None, None), OURS)
    assert texts(proof) == ["The server does not use GPU 1, which it was given"]


def test_on_a_gpu_that_it_was_not_given() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000, 6000, 300), OURS)
    assert texts(proof) == ["The server also uses GPU 2 (GPU-2), which it was not given"]
    assert proof.rows[2]["held"] == 300 * MIB


def test_a_server_for_the_cpu_uses_none() -> None:
    assert compare(plan(), (), gpus(None, None, None), OURS).problems == ()
    assert compare(plan(), (), gpus(1, None, None), OURS).problems != ()


def test_a_lost_gpu() -> None:
    proof = compare(plan(6000, 6000), ASKED, gpus(6000), OURS)
    assert texts(proof) == ["The GPU GPU-1 of the server does not answer any more"]


@pytest.mark.parametrize(
    ("planned", "held", "source", "good"),
    [
        (6000, 6890, "llama-fit-params", True),
        (6000, 6910, "llama-fit-params", False),
        (6000, 5090, "llama-fit-params", False),
        # CUDA's own memory is a fixed amount, so a small model may differ more.
        (1000, 1510, "llama-fit-params", True),
        (1000, 1520, "llama-fit-params", False),
        (6000, 3010, "estimate", True),
        (6000, 2990, "estimate", False),
    ],
)
def test_how_much_may_differ_from_the_plan(planned: int, held: int, source: str, good: bool) -> None:
    proof = compare(plan(planned, source=source), ASKED[:1], gpus(held), OURS)
    assert (proof.problems == ()) is good
    if not good:
        assert f"The server uses {held} MiB on GPU 0, planned are {planned} MiB ({source})" in texts(proof)[0]


def test_a_server_that_adapts_its_memory_only_has_to_be_there() -> None:
    assert compare(plan(6000, 6000, adapts=True), ASKED, gpus(600, 600), OURS).problems == ()
    assert compare(None, ASKED, gpus(600, 600), OURS).problems == ()
    assert compare(None, ASKED, gpus(600, None), OURS).problems != ()


def test_a_gpu_without_planned_memory_needs_no_process() -> None:
    assert compare(plan(6000, 0), ASKED, gpus(6000, None), OURS).problems == ()


def test_memory_that_nvml_hides_is_not_compared() -> None:
    hidden = [Gpu(index=0, uuid="GPU-0", processes=(GpuProcess(11, None, None, None),))]
    assert compare(plan(6000), ASKED[:1], hidden, OURS).problems == ()


def test_two_processes_of_it_on_one_gpu_count_together() -> None:
    both = (GpuProcess(11, 4000 * MIB, None, None), GpuProcess(12, 2000 * MIB, None, None))
    assert compare(plan(6000), ASKED[:1], [Gpu(index=0, uuid="GPU-0", processes=both)], OURS).problems == ()
