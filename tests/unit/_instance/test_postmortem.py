# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is gathered of the host for a diagnosis. The GPUs are made up."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import read as gpu
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu.read import Gpu, NvmlUnavailable
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import postmortem
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import Record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.render import Place
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import IMAGE, a_record, with_launch

XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid=4711, GPU has fallen off the bus."


class Fake(manager.Manager):
    """A manager whose unit is as the test says."""

    name = "supervisor"

    def __init__(self, detail: str | None) -> None:
        super().__init__(lambda argv: (0, "", ""), "/h")
        self.detail = detail

    def observe(self, unit: manager.Unit) -> manager.UnitState:
        if self.detail is None:
            raise manager.ManagerError("gone")
        return manager.UnitState(detail=self.detail)


def look(value: Record, detail: str | None = "", answer: tuple[int, str, str] = (0, "", ""), asked: Any = None) -> Any:
    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        if asked is not None:
            asked.append(list(argv))
        return answer

    return postmortem.look(Place("/h", "x", Fake(detail), run), value, 1700000000.5)


@pytest.fixture(autouse=True)
def cards(monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """The host's GPUs, made up."""
    found = [Gpu(index, uuid=f"GPU-{index}", memory_free=(index + 1) << 30) for index in range(3)]
    monkeypatch.setattr(gpu, "read_gpus", lambda: found)
    return found


def with_gpus(*uuids: str) -> Record:
    return with_launch(a_record(), gpus=uuids)


def test_what_the_instance_has() -> None:
    found = look(with_gpus())
    assert found.image == IMAGE
    assert "/data/models:/models" in found.binds
    assert (found.gpus, found.gpu_free) == ((), ())
    assert found.memory_free > 0
    assert not found.oom_killed


def test_the_gpus_in_the_order_of_the_instance() -> None:
    found = look(with_gpus("GPU-2", "GPU-0"))
    assert (found.gpus, found.gpu_free) == (("2 (GPU-2)", "0 (GPU-0)"), (3072, 1024))


def test_gpus_that_are_gone_or_cannot_be_read(cards: list[Gpu], monkeypatch: pytest.MonkeyPatch) -> None:
    del cards[2]
    found = look(with_gpus("GPU-2", "GPU-0"))
    assert (found.gpus, found.gpu_free) == (("GPU-2", "GPU-0"), ())

    def broken() -> list[Gpu]:
        raise NvmlUnavailable("no driver")

    monkeypatch.setattr(gpu, "read_gpus", broken)
    assert look(with_gpus("GPU-0")).gpus == ()


def test_who_has_the_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        value = a_record(port=other.getsockname()[1])
        assert f"pid {os.getpid()} of user " in look(value).port_owner
    assert look(value).port_owner is None


@pytest.mark.parametrize(
    ("detail", "oom_killed"), [("failed (failed), oom-kill", True), ("failed (failed)", False), (None, False)]
)
def test_the_oom_killer_as_the_manager_reports_it(detail: str | None, oom_killed: bool) -> None:
    assert look(a_record(), detail).oom_killed is oom_killed


def test_the_kernels_log_since_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    asked: list[list[str]] = []
    assert look(a_record(), answer=(0, f"usb\n{XID}\n", ""), asked=asked).kernel == ("usb", XID)
    assert asked[0][:3] == ["/usr/bin/journalctl", "--dmesg", "--since=@1700000000"]
    assert look(a_record(), answer=(1, "no", "permission")).kernel == ()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert look(a_record(), answer=(0, XID, "")).kernel == ()


def test_memory_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\n", encoding="ascii")
    monkeypatch.setattr(postmortem, "MEMORY", str(tmp_path / "meminfo"))
    assert look(a_record()).memory_free is None
    monkeypatch.setattr(postmortem, "MEMORY", str(tmp_path / "none"))
    assert look(a_record()).memory_free is None
