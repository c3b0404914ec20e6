# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module llamacpp_instance_info on records that this test has written; nothing runs here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager, process
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import module, status
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.modules import llamacpp_instance_info
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_record

RunModule = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "prefer_library", lambda distribution, home: False)
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        store.write(str(tmp_path / name), a_record(name=name, release=name == "a"))
    return tmp_path


def ask(run_module: RunModule, home: Path, **options: Any) -> list[dict[str, Any]]:
    result = run_module(llamacpp_instance_info, {"home": str(home), **options})
    assert not result["failed"] and result["changed"] is False
    return list(result["instances"])


def test_all_of_them_sorted(run_module: RunModule, home: Path) -> None:
    (home / "shared").mkdir()
    assert [one["name"] for one in ask(run_module, home)] == ["a", "b"]
    assert ask(run_module, home / "nothing") == []


def test_one_that_does_not_run(run_module: RunModule, home: Path) -> None:
    (one,) = ask(run_module, home, name="a")
    assert (one["state"], one["pid"], one["uptime"], one["health"], one["enabled"]) == ("stopped", *[None] * 3, False)
    assert (one["port"], one["url"], one["manager"]) == (4403, "http://127.0.0.1:4403", "supervisor")
    assert one["release"]["proven"] == "2026-10-01T12:00:00Z"
    assert "stamp" not in one["image"] and "files" not in one["model"]
    assert (one["drift"], one["gpu_memory"]) == ([], [])


def test_everything_that_is_returned_is_documented(run_module: RunModule, home: Path) -> None:
    documented = yaml.safe_load(llamacpp_instance_info.RETURN)["instances"]["contains"]
    (one,) = ask(run_module, home, name="a", log_lines=2)
    assert set(documented) - {"problem"} == set(one)


def test_the_last_lines_of_its_log(run_module: RunModule, home: Path) -> None:
    (home / "a" / "llama-server.log").write_text("one\ntwo\nthree\n")
    (one,) = ask(run_module, home, name="a", log_lines=2)
    assert one["log"] == ["two", "three"]
    assert "log" not in ask(run_module, home, name="a")[0]


def test_one_that_is_not_there(run_module: RunModule, home: Path) -> None:
    assert ask(run_module, home, name="c") == [{"name": "c", "state": "absent"}]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}', '{"format": 1, "spec": {}}'])
def test_a_broken_record_does_not_hide_the_others(run_module: RunModule, home: Path, content: str) -> None:
    (home / "a" / "instance.json").write_text(content)
    broken, other = ask(run_module, home)
    assert (broken["state"], other["state"]) == ("broken", "stopped")
    assert str(home / "a" / "instance.json") in broken["problem"]


def test_a_manager_that_does_not_answer(run_module: RunModule, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, unit: Any) -> None:
        raise manager.ManagerError("the crontab cannot be read")

    monkeypatch.setattr(manager.Supervisor, "observe", fails)
    assert ask(run_module, home, name="a") == [
        {"name": "a", "state": "broken", "problem": "the crontab cannot be read."}
    ]


def test_a_name_that_is_none(run_module: RunModule, home: Path) -> None:
    result = run_module(llamacpp_instance_info, {"home": str(home), "name": "../x"})
    assert result["failed"] and "'../x'" in result["msg"]


ON = manager.UnitState(installed=True, enabled=True, active=True)


def test_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = a_launch()
    server = launch.arguments
    now = {"launch": launch.id}
    monkeypatch.setattr(process, "command", lambda pid: ["/opt/llama.cpp/build/bin/llama-server", *server])
    assert status.drift(launch, now, os.getpid(), ON) == []
    monkeypatch.setattr(process, "command", lambda pid: ["llama-server", *server[:-1], "1.1"])
    assert status.drift(launch, now, 1, ON) == ["the arguments of the process are not the recorded ones"]
    assert status.drift(launch, {"launch": "x"}, 1, ON) == [
        f"the process was started with launch x, recorded is {launch.id}"
    ]
    assert status.drift(launch, {}, None, manager.UnitState(True, True, False)) == ["it should run and does not"]
    assert status.drift(launch, {}, None, manager.UnitState(True, False, True)) == [
        "it runs now and would not start at boot"
    ]
    assert status.drift(launch, {}, None, manager.UnitState(True)) == []


def test_one_by_its_port(run_module: RunModule, home: Path) -> None:
    value = a_record(name="c", port=5001)
    (home / "c").mkdir()
    store.write(str(home / "c"), value)
    assert [one["name"] for one in ask(run_module, home, name="5001")] == ["c"]
    assert [one["name"] for one in ask(run_module, home, name="4403")] == ["a", "b"]
    assert ask(run_module, home, name="1") == [{"name": "1", "state": "absent"}]


def test_a_record_that_cannot_be_read_hinders_no_other(run_module: RunModule, home: Path) -> None:
    (home / "b" / "instance.json").write_text("{")
    assert [one["name"] for one in ask(run_module, home, name="4403")] == ["a"]
