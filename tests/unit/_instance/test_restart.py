# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between stop and start: the old server's memory has to be free again. The GPUs here are made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.read import Gpu, GpuProcess, NvmlUnavailable
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import restart
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch

GIB = 1 << 30


def card(free: int, *pids: int, error: str | None = None) -> list[Gpu]:
    processes = tuple(GpuProcess(pid, 5 * GIB, "o", "llama-server") for pid in pids)
    return [Gpu(0, "GPU-a", memory_total=140 * GIB, memory_free=free * GIB, processes=processes, error=error)]


def readings(monkeypatch: pytest.MonkeyPatch, *found: list[Gpu]) -> Callable[[], int]:
    """NVML says these one after the other, and then the last one for ever; returns how often it was asked."""
    asked = [0]

    def read() -> list[Gpu]:
        asked[0] += 1
        return found[min(asked[0], len(found)) - 1]

    monkeypatch.setattr(restart.gpu, "read_memory", read)
    return lambda: asked[0]


HELD = [restart.GpuUse("GPU-a", 0, 5 * GIB, 100 * GIB)]


def test_what_the_old_server_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, card(100, 7, 8))
    assert restart._held([7, 9]) == HELD
    assert restart._held([9]) == []
    assert restart._held([]) == []


def test_the_memory_of_a_process_that_is_gone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = readings(monkeypatch, card(100, 7), card(100), card(105))
    assert restart.wait_for_gpus([7], HELD, 5) == []
    assert asked() == 3


def test_a_pid_that_still_holds_something_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = readings(monkeypatch, card(110, 7), card(110, 8))
    assert restart.wait_for_gpus([7], HELD, 5) == []
    assert asked() == 2


def test_what_is_not_given_back_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, card(100))
    assert restart.wait_for_gpus([7], HELD, 0) == [
        "GPU memory of the old server was not free 0 s after its end: GPU 0 (5120 MiB)."
    ]


@pytest.mark.parametrize("now", [card(0, error="lost"), []])
def test_a_gpu_that_is_lost_meanwhile_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, now: list[Gpu]) -> None:
    readings(monkeypatch, now)
    assert restart.wait_for_gpus([7], HELD, 5) == []


def test_where_there_is_no_nvml_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> list[Gpu]:
        raise NvmlUnavailable("The driver is not loaded", 9)

    monkeypatch.setattr(restart.gpu, "read_memory", read)
    assert restart._held([7]) == []
    (said,) = restart.wait_for_gpus([7], HELD, 5)
    assert said.endswith("The driver is not loaded.")


def test_cut_requests_are_counted() -> None:
    launch = a_launch(drain_timeout=5)
    assert restart.cut_requests({"cut": 0}, launch) == restart.cut_requests({}, launch) == []
    assert restart.cut_requests({"cut": 1}, launch)[0].startswith("1 request was still running after 5 s")
