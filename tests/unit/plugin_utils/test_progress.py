# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the action reads the answers of the host. test_progress_run.py runs it whole."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils import _progress as action
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._progress import Job, Poll, Watch, pause, read

PROGRESS = {"pid": 17, "phase": "download", "name": "a.gguf", "eta": 10.0}
GOES_ON = {"started": True, "finished": False, "ansible_job_id": "j1.1"}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "with a 'quote"
    folder.mkdir()
    return Job("j1.1", str(folder), "ab.progress")


def sh(command: str) -> str:
    return subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout


class TestPoll:
    def test_of_a_running_job(self, job: Job) -> None:
        for path, content in zip(job.files, (json.dumps(PROGRESS) + "\n", json.dumps(GOES_ON))):
            Path(path).write_text(content)
        assert read(sh(job.poll(os.getpid()))) == Poll(PROGRESS, ended=False, alive=True)

    def test_of_a_job_that_ended(self, job: Job) -> None:
        Path(job.files[1]).write_text(json.dumps({"changed": True, "msg": "alive"}))
        assert read(sh(job.poll(None))) == Poll(None, ended=True, alive=False)

    def test_of_nothing(self, job: Job) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        assert subprocess.run(["/bin/sh", "-c", job.poll(gone.pid)], check=False, capture_output=True).stdout == b"\n"
        assert read("\n") == Poll()

    def test_ignores_a_banner_at_login(self) -> None:
        shown = f"Welcome to {{gpu1}}\n[1]\n{json.dumps(PROGRESS)}\n{json.dumps(GOES_ON)}\nalive\n"
        assert read(shown) == Poll(PROGRESS, ended=False, alive=True)

    def test_of_a_result_of_an_older_async_status(self) -> None:
        assert read('{"started": 1, "finished": 1}').ended


def test_no_file_of_a_job_remains(job: Job) -> None:
    for path in (*job.files, f"{job.files[0]}.17", f"{job.files[1]}.tmp"):
        Path(path).touch()
    other = Path(job.folder) / "j2.2"
    other.touch()
    sh(job.remove())
    assert list(Path(job.folder).iterdir()) == [other]


class TestPause:
    def test_grows(self) -> None:
        assert [pause(number, Poll()) for number in range(7)] == [0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]

    def test_is_no_longer_than_the_fetch(self) -> None:
        assert pause(9, Poll(PROGRESS)) == 5.0
        assert pause(9, Poll({**PROGRESS, "eta": 1.5})) == 1.5
        assert pause(9, Poll({**PROGRESS, "eta": 0.0})) == 0.2


class TestWatch:
    def test_python_has_time_to_start(self) -> None:
        watch = Watch(100.0)
        watch.note(Poll(), 101.0)
        assert not watch.is_dead(150.0)
        assert watch.is_dead(161.0)

    def test_a_job_with_a_process_is_alive(self) -> None:
        watch = Watch(100.0)
        watch.note(Poll(PROGRESS), 101.0)
        assert watch.pid == 17
        watch.note(Poll(PROGRESS, alive=True), 200.0)
        assert not watch.is_dead(214.0)
        watch.note(Poll(PROGRESS), 214.0)
        assert watch.is_dead(216.0)

    def test_follows_a_module_into_another_python(self) -> None:
        watch = Watch(100.0)
        watch.note(Poll(PROGRESS), 101.0)
        watch.note(Poll({**PROGRESS, "pid": 18}), 130.0)
        assert (watch.pid, watch.is_dead(131.0)) == (18, False)


class TestInTime:
    def test_returns_what_the_step_returns(self) -> None:
        assert action.in_time(lambda: {"rc": 0}, 60) == {"rc": 0}

    def test_raises_what_the_step_raises(self) -> None:
        with pytest.raises(ZeroDivisionError):
            action.in_time(lambda: {"rc": 1 // 0}, 60)

    def test_gives_up_on_silence(self) -> None:
        silence = threading.Event()
        with pytest.raises(AnsibleConnectionFailure, match="did not answer"):
            action.in_time(lambda: {"rc": silence.wait()}, 0.01)
        silence.set()


class TestResult:
    def test_is_the_modules_own(self) -> None:
        own = {"changed": True, "warnings": ["a"], "diff": {}, "invocation": {"module_args": {"path": "/a"}}}
        job = {"ansible_job_id": "j1.1", "started": True, "finished": True, "results_file": "/x", "stderr": ""}
        assert action._cleaned({**own, **job}) == own

    def test_of_a_failure_is_the_modules_own(self) -> None:
        assert action._is_of_module({"failed": True, "msg": "No space left"})

    @pytest.mark.parametrize(
        "result",
        [
            {},
            {
                "failed": True,
                "cmd": "/tmp/x",
                "msg": "Traceback (most recent call last): ...",
                "data": "",
                "stderr": "",
            },
        ],
    )
    def test_of_a_killed_module_is_a_sentence(self, result: dict) -> None:
        assert not action._is_of_module(result)
        killed = action._killed(result)
        assert killed["failed"] and "run this again to continue." in killed["msg"]
        assert "Traceback" not in killed["msg"]

    def test_of_a_killed_module_has_its_output(self) -> None:
        assert action._killed({"stderr": "Killed\n"})["msg"].endswith("Its output: Killed")
