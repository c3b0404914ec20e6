# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
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


def said(path: Path) -> dict[str, Any]:
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    value: dict[str, Any] = json.loads(lines[0])
    return value


class TestProgressFile:
    def test_says_it_all_to_its_own_user_only(self, path: Path) -> None:
        tell = ProgressFile(str(path)).fetching("/data/models/a.gguf")
        assert tell is not None
        tell(at(500, resumed=100))
        assert said(path) == {
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
        tell = progress.fetching("/m/2")
        assert tell is not None
        tell(at(500, total=3000, resumed=200))
        now = said(path)
        assert (now["file"], now["files"], now["bytes"], now["total"]) == (2, 3, 1500, 10000)
        assert (now["resumed"], now["eta"]) == (1200, 170.0)
        tell(at(2000, "verify", total=3000, resumed=200))
        now = said(path)
        assert (now["file"], now["bytes"], now["total"]) == (2, 2000, 3000)
        tell = progress.fetching("/m/3")
        assert tell is not None
        tell(at(1, total=6000))
        assert (said(path)["bytes"], said(path)["resumed"]) == (4001, 1200)

    def test_does_not_know_the_whole_before_every_size(self, path: Path, clock: list[float]) -> None:
        progress = ProgressFile(str(path))
        progress.expect({"/m/1": None, "/m/2": None})
        tell = progress.fetching("/m/1")
        assert tell is not None
        tell(at(500))
        assert (said(path)["bytes"], said(path)["total"], said(path)["eta"]) == (500, None, None)
        progress.learn("/m/2", 4000)
        clock[0] += 1
        tell(at(600))
        assert (said(path)["bytes"], said(path)["total"]) == (600, 5000)

    def test_has_no_time_left_without_a_rate(self, path: Path) -> None:
        tell = ProgressFile(str(path)).fetching("/a")
        assert tell is not None
        tell(Progress(0, 1000, 0, 0.0, "download"))
        assert said(path)["eta"] is None

    def test_is_written_once_a_second(self, path: Path, clock: list[float]) -> None:
        with ProgressFile(str(path)) as progress:
            tell = progress.fetching("/a")
            assert tell is not None
            tell(at(1))
            clock[0] += 0.9
            tell(at(2))
            assert said(path)["bytes"] == 1
            clock[0] += 0.2
            tell(at(3))
            assert said(path)["bytes"] == 3
            tell(at(4, "verify"))  # a new phase is told at once
            assert said(path)["phase"] == "verify"
        assert os.listdir(path.parent) == []

    def test_of_a_phase_without_numbers(self, path: Path) -> None:
        ProgressFile(str(path)).enter("build", "/opt/a.sif")
        assert {key: value for key, value in said(path).items() if value is not None} == {
            "pid": os.getpid(),
            "name": "a.sif",
            "file": 1,
            "files": 1,
            "phase": "build",
        }

    def test_of_a_folder_that_is_no_more_is_not_missed(self, tmp_path: Path) -> None:
        with ProgressFile(str(tmp_path / "none" / "a.progress")) as progress:
            progress.enter("copy", "/a")

    def test_is_not_asked_for_without_a_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with ProgressFile(None) as progress:
            progress.enter("copy", "/a")
            assert progress.fetching("/a") is None
        assert os.listdir(tmp_path) == []


class TestBegin:
    def test_tells_that_it_looks(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(progress_module.FILE, str(path))
        begin("/m/a.gguf")
        assert (said(path)["phase"], said(path)["name"]) == ("look", "a.gguf")
        assert not is_deferred()
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_finds_the_home_of_its_user(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(path.parent))
        monkeypatch.setenv(progress_module.FILE, "~/a.progress")
        begin("/m/a.gguf")
        assert path.exists()

    def test_tells_nothing_where_it_will_not_bring(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(progress_module.FILE, str(path))
        monkeypatch.setenv(progress_module.DEFER, "1")
        begin("/m/a.gguf")
        assert not path.exists()
        assert is_deferred()

    def test_tells_nothing_that_nobody_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            pytest.param(RUNNING, 24 * 31, False, id="running for longer than any job may"),
            pytest.param(ENDED, 0, True, id="ended just now"),
            pytest.param(ENDED, 1, False, id="ended, and nobody came for it"),
            pytest.param("", 1, False, id="no job at all"),
        ],
    )
    def test_takes_what_nobody_waits_for(self, path: Path, content: str, hours: int, stays: bool) -> None:
        job = path.parent / "j1.1"
        job.write_text(content)
        then = time.time() - hours * 3600
        os.utime(job, (then, then))
        sweep(str(path))
        assert job.exists() == stays

    def test_of_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        sweep(str(tmp_path / "none" / "a.progress"))
