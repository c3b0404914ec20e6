# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress file of a pull."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import progress as progress_module
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.progress import (
    Progress,
    ProgressFile,
    begin,
    is_deferred,
    sweep,
)


def at(done: int, phase: str = "download", total: int = 1000, resumed: int = 0) -> Progress:
    return Progress(done, total, resumed, 50.0, phase)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.progress"


def reported(path: Path) -> dict[str, Any]:
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    value: dict[str, Any] = json.loads(lines[0])
    return value


class TestProgressFile:
    def test_is_one_object_readable_by_its_user_only(self, path: Path) -> None:
        report = ProgressFile(str(path)).fetching("/data/models/a.gguf")
        assert report is not None
        report(at(500, resumed=100))
        assert reported(path) == {
            "pid": os.getpid(),
            "name": "a.gguf",
            "file": 1,
            "files": 1,
            "phase": "download",
            "bytes": 500,
            "total": 1000,
            "resumed": 100,
            "rate": 50.0,
            "eta": 10.0,
        }
        assert os.listdir(path.parent) == ["a.progress"]
        assert path.stat().st_mode & 0o777 == 0o600

    def test_counts_the_whole_set(self, path: Path, clock: list[float]) -> None:
        progress = ProgressFile(str(path))
        progress.expect({"/m/1": 1000, "/m/2": 3000, "/m/3": 6000})
        progress.learn("/m/1", 1000, here=True)
        report = progress.fetching("/m/2")
        assert report is not None
        report(at(500, total=3000, resumed=200))
        now = reported(path)
        assert (now["file"], now["files"], now["bytes"], now["total"]) == (2, 3, 1500, 10000)
        assert (now["resumed"], now["eta"]) == (1200, 170.0)
        report(at(2000, "verify", total=3000, resumed=200))
        now = reported(path)
        assert (now["file"], now["bytes"], now["total"]) == (2, 2000, 3000)
        report = progress.fetching("/m/3")
        assert report is not None
        report(at(1, total=6000))
        assert (reported(path)["bytes"], reported(path)["resumed"]) == (4001, 1200)

    def test_the_total_is_unknown_without_every_size(self, path: Path, clock: list[float]) -> None:
        progress = ProgressFile(str(path))
        progress.expect({"/m/1": None, "/m/2": None})
        report = progress.fetching("/m/1")
        assert report is not None
        report(at(500))
        assert (reported(path)["bytes"], reported(path)["total"], reported(path)["eta"]) == (500, None, None)
        progress.learn("/m/2", 4000)
        clock[0] += 1
        report(at(600))
        assert (reported(path)["bytes"], reported(path)["total"]) == (600, 5000)

    def test_without_a_rate_there_is_no_eta(self, path: Path) -> None:
        report = ProgressFile(str(path)).fetching("/a")
        assert report is not None
        report(Progress(0, 1000, 0, 0.0, "download"))
        assert reported(path)["eta"] is None

    def test_is_written_once_a_second(self, path: Path, clock: list[float]) -> None:
        with ProgressFile(str(path)) as progress:
            report = progress.fetching("/a")
            assert report is not None
            report(at(1))
            clock[0] += 0.9
            report(at(2))
            assert reported(path)["bytes"] == 1
            clock[0] += 0.2
            report(at(3))
            assert reported(path)["bytes"] == 3
            report(at(4, "verify"))  # a new phase is reported at once
            assert reported(path)["phase"] == "verify"
        assert os.listdir(path.parent) == []

    def test_a_phase_without_numbers(self, path: Path) -> None:
        ProgressFile(str(path)).enter("build", "/opt/a.sif")
        assert {key: value for key, value in reported(path).items() if value is not None} == {
            "pid": os.getpid(),
            "name": "a.sif",
            "file": 1,
            "files": 1,
            "phase": "build",
        }

    def test_a_missing_folder_is_no_error(self, tmp_path: Path) -> None:
        with ProgressFile(str(tmp_path / "none" / "a.progress")) as progress:
            progress.enter("copy", "/a")

    def test_without_a_path_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with ProgressFile(None) as progress:
            progress.enter("copy", "/a")
            assert progress.fetching("/a") is None
        assert os.listdir(tmp_path) == []


class TestBegin:
    def test_starts_with_the_phase_look(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(progress_module.FILE, str(path))
        begin("/m/a.gguf")
        assert (reported(path)["phase"], reported(path)["name"]) == ("look", "a.gguf")
        assert not is_deferred()
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_expands_the_home_of_its_user(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(path.parent))
        monkeypatch.setenv(progress_module.FILE, "~/a.progress")
        begin("/m/a.gguf")
        assert path.exists()

    def test_a_deferred_module_reports_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(progress_module.FILE, str(path))
        monkeypatch.setenv(progress_module.DEFER, "1")
        begin("/m/a.gguf")
        assert not path.exists()
        assert is_deferred()

    def test_without_an_action_plugin_there_is_no_report(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(progress_module.FILE, raising=False)
        monkeypatch.chdir(tmp_path)
        with begin("/m/a.gguf"):
            assert os.listdir(tmp_path) == []


class TestSweep:
    RUNNING = '{"started": true, "finished": false, "ansible_job_id": "j1.1"}'
    ENDED = '{"changed": true}'

    @pytest.mark.parametrize(
        ("content", "hours", "stays"),
        [
            pytest.param(RUNNING, 0, True, id="running"),
            pytest.param(RUNNING, 24 * 29, True, id="running for weeks"),
            pytest.param(RUNNING, 24 * 31, False, id="running longer than any job can"),
            pytest.param(ENDED, 0, True, id="just ended"),
            pytest.param(ENDED, 1, False, id="ended an hour ago"),
            pytest.param("", 1, False, id="not a job"),
        ],
    )
    def test_removes_abandoned_files(self, path: Path, content: str, hours: int, stays: bool) -> None:
        job = path.parent / "j1.1"
        job.write_text(content)
        then = time.time() - hours * 3600
        os.utime(job, (then, then))
        sweep(str(path))
        assert job.exists() == stays

    def test_a_missing_folder_is_no_error(self, tmp_path: Path) -> None:
        sweep(str(tmp_path / "none" / "a.progress"))
