# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A launch that passes the gate becomes the release; one that fails is rolled back, and the operator reads why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager, runner
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import (
    postmortem,
    prove,
    release,
    restart,
    rollback,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.prove import GateFailed
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import Record, Release
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.render import Place
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record, with_launch, with_setup


class Fake(manager.Manager):
    """A manager that only notes what it was asked to do, and fails at what it is told to fail at."""

    name = "supervisor"

    def __init__(self, fails_at: str = "") -> None:
        super().__init__(lambda argv: (0, "", ""), "/h")
        self.fails_at, self.done = fails_at, list[str]()
        self.state = manager.UnitState(True, True, True)

    def note(self, what: str) -> None:
        self.done.append(what)
        if what == self.fails_at:
            raise manager.ManagerError(f"cannot {what}")

    def observe(self, unit: manager.Unit) -> manager.UnitState:
        return self.state

    def differs(self, unit: manager.Unit) -> list[str]:
        return [] if unit.enabled == self.state.enabled else ["it does not start with the host"]

    def install(self, unit: manager.Unit) -> None:
        self.note("enable" if unit.enabled else "disable")
        self.state = manager.UnitState(True, unit.enabled, self.state.active)

    def start(self, unit: manager.Unit) -> None:
        self.note("start")
        self.state = manager.UnitState(True, self.state.enabled, True)

    def stop(self, unit: manager.Unit) -> None:
        self.note("stop")
        self.state = manager.UnitState(True, self.state.enabled, False)

    def commands(self, unit: manager.Unit) -> dict[str, list[str]]:
        return {"prepare": [], "start": ["start"], "stop": ["stop"], "pid": [], "logs": ["logs"]}


@pytest.fixture
def changed(tmp_path: Path) -> Record:
    """A record whose context was changed, with the release before; image and model are there."""
    (tmp_path / "4403-glm-4.7-flash-q4").mkdir()
    (tmp_path / "x.sif").touch()
    (tmp_path / "x.gguf").touch()
    old, new = a_record(release=True), a_record(context_size=4096)
    assert old.release and old.image and old.model
    files = {
        "image": replace(old.image, path=str(tmp_path / "x.sif")),
        "model": replace(old.model, path=str(tmp_path / "x.gguf")),
    }
    last = replace(old.release, setup=replace(old.setup, **files))
    return replace(with_setup(new, **files), release=last)


def place(home: Path, fake: Fake) -> Place:
    return Place(str(home), "4403-glm-4.7-flash-q4", fake, lambda argv: (0, "", ""))


def last(record: Record) -> Release:
    assert record.release
    return record.release


def test_a_rollback_is_possible(changed: Record) -> None:
    assert rollback.no_rollback(changed) is None


def test_no_rollback_without_another_release(changed: Record) -> None:
    assert rollback.no_rollback(replace(changed, release=None)) == "there is no earlier release to roll back to"


@pytest.mark.parametrize(("kind", "was"), [("image", "111111111111"), ("model", "222222222222")])
def test_no_rollback_to_a_file_that_was_replaced(changed: Record, kind: str, was: str) -> None:
    facts = getattr(changed, kind)
    new = with_setup(changed, **{kind: replace(facts, sha256="9" * 64)})
    assert rollback.no_rollback(new) == (
        f"the release of 2026-10-01T12:00:00Z ran another {kind} in {facts.path} (sha256 {was}...)"
    )
    os.unlink(facts.path)
    moved = with_setup(changed, **{kind: replace(facts, path="/elsewhere")})
    assert rollback.no_rollback(moved) == (
        f"the {kind} of the release of 2026-10-01T12:00:00Z, {facts.path}, is not there any more"
    )


def gates(monkeypatch: pytest.MonkeyPatch, *outcomes: str) -> list[str]:
    """Let the gate fail with these words, or pass where they are empty; returns the launches that it is asked about."""
    asked: list[str] = []
    left = list(outcomes)

    def fake(there: Place, record: Record, timeout: Any, before: Any) -> Release:
        asked.append(record.launch.id)
        said = left.pop(0)
        if said:
            raise GateFailed("start", [Problem("", said.rstrip("."))], said)
        return Release("2026-10-02T12:00:00Z", 1.0, {}, None, record.setup)

    monkeypatch.setattr(release, "prove", fake)
    monkeypatch.setattr(rollback, "prove", fake)
    return asked


def failed(home: Path, fake: Fake, record: Record, may_roll_back: bool = True) -> str:
    with pytest.raises(GateFailed) as error:
        release.release(place(home, fake), record, None, True, may_roll_back)
    return str(error.value)


def evidence(home: Path) -> list[Path]:
    return sorted((home / "4403-glm-4.7-flash-q4/failures").iterdir())


@pytest.mark.parametrize("has_release", [True, False])
def test_without_rollback_what_failed_is_stopped_and_nothing_else_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record, has_release: bool
) -> None:
    gates(monkeypatch, "It ended.")
    fake = Fake()
    said = failed(tmp_path, fake, changed if has_release else replace(changed, release=None), may_roll_back=False)
    assert "\nIt is stopped and does not start at boot, because rollback is off. " in said
    assert ("The last release is that of 2026-10-01T12:00:00Z." in said) == has_release
    assert fake.done == ["stop", "start", "stop", "disable"]


def test_what_cannot_be_stopped_is_reported_with_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    gates(monkeypatch, "It ended.")
    said = failed(tmp_path, Fake("disable"), changed, may_roll_back=False)
    assert "It could not be stopped either: cannot disable. The state of its unit under supervisor: stopped." in said


def test_requests_that_were_cut_are_told_in_success_and_in_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    there = place(tmp_path, Fake())
    me = runner.process(os.getpid())
    assert me is not None
    state = {"runner_pid": os.getpid(), "runner_start": me.start, "cut": 2}
    Path(there.folder, "running.json").write_text(json.dumps(state))
    monkeypatch.setattr(restart.gpu, "read_memory", lambda: [])
    sentence = "2 requests were still running after 60 s and had to be cut."
    gates(monkeypatch, "", "It ended.", "")
    dummy, warnings = release.release(there, changed, None, True)
    assert [warning[: len(sentence)] for warning in warnings] == [sentence]
    assert f"\n{sentence}" in failed(tmp_path, Fake(), changed)


def test_the_evidence_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record) -> None:
    there = place(tmp_path, Fake())
    Path(there.folder, "llama-server.log").write_text("0.00.100.000 E cudaMalloc failed\n")
    gates(monkeypatch, "It ended.", "That too.")
    failed(tmp_path, Fake(), changed)
    kept = evidence(tmp_path)
    newest = next(folder for folder in kept if folder.name.endswith(changed.launch.id))
    assert (newest / "llama-server.log").read_text() == "0.00.100.000 E cudaMalloc failed\n"
    assert json.loads((newest / "argv.json").read_text())[0] == "/usr/bin/apptainer"
    assert "It ended." in (newest / "failure.txt").read_text()


def test_evidence_is_kept_for_the_last_few(tmp_path: Path, changed: Record) -> None:
    there = place(tmp_path, Fake())
    for number in range(7):
        (tmp_path / "4403-glm-4.7-flash-q4/failures" / f"2026010{number}T000000Z-x").mkdir(parents=True)
    said = postmortem.keep(there, changed, "It ended.")
    kept = evidence(tmp_path)
    assert said == f"The evidence is in {kept[-1]}."
    assert [folder.name[:8] for folder in kept[:-1]] == ["20260103", "20260104", "20260105", "20260106"]


def test_a_full_disk_does_not_hide_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    (tmp_path / "4403-glm-4.7-flash-q4/failures").touch()
    gates(monkeypatch, "It ended.", "")
    said = failed(tmp_path, Fake(), changed)
    assert said.startswith("Failed at the start: It ended.\nBack on the release of")
    assert "The evidence could not be kept in" in said


def test_a_failed_first_deployment_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    gates(monkeypatch, "It ended.")
    fake = Fake()
    said = failed(tmp_path, fake, replace(changed, release=None))
    first, second, third = said.split("\n")
    assert (first, second) == (
        "Failed at the start: It ended.",
        "The instance is stopped: there is no earlier release to roll back to.",
    )
    assert third == f"The evidence is in {evidence(tmp_path)[0]}."
    assert fake.done == ["stop", "start", "stop", "disable"]


def test_a_rollback_restores_the_last_release_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    asked = gates(monkeypatch, "It ended.", "")
    fake = Fake()
    said = failed(tmp_path, fake, changed)
    assert said.startswith(
        "Failed at the start: It ended.\nBack on the release of 2026-10-01T12:00:00Z, serving again after 0 s.\n"
    )
    assert fake.done == ["stop", "start", "stop", "disable", "enable", "stop", "start"]
    assert asked == [changed.launch.id, last(changed).setup.launch.id]
    there = place(tmp_path, fake).folder
    now = store.read(there)
    assert now and (now.spec.value("context_size"), now.setup) == (65536, last(changed).setup)
    assert now.release == changed.release
    script = Path(there, "run.sh").read_text()
    assert "-c 65536" in script and "-c 4096" not in script


def test_the_last_release_does_not_work_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    gates(monkeypatch, "It ended.", "That too.")
    said = failed(tmp_path, Fake(), changed)
    again = "The release of 2026-10-01T12:00:00Z was started again, and does not work either: "
    assert f"\n{again}Failed at the start: That too.\n" in said
    assert "supervisor keeps trying to start it." in said
    assert len(evidence(tmp_path)) == 2


@pytest.mark.parametrize("fails_at", ["start", "disable", "enable"])
def test_a_manager_that_fails_is_told_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record, fails_at: str
) -> None:
    gates(monkeypatch, "It ended.", "")
    said = failed(tmp_path, Fake(fails_at), changed)
    assert said.startswith(
        "Failed at the stop and start: cannot start" if fails_at == "start" else "Failed at the start: It ended."
    )
    assert (
        f"\nThe rollback to the last release failed too: cannot {fails_at}.\nThe state of its unit under supervisor: "
        in said
    )


def test_a_pass_is_recorded_and_the_former_release_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    gates(monkeypatch, "")
    there = place(tmp_path, Fake())
    done, warnings = release.release(there, changed, None, True)
    assert (store.read(there.folder), warnings) == (done, [])
    assert last(done).setup == changed.setup
    (kept,) = os.listdir(os.path.join(there.folder, "releases"))
    assert json.loads(Path(there.folder, "releases", kept).read_text()) == last(changed).to_json()


def test_what_runs_already_is_not_started_to_be_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    gates(monkeypatch, "")
    fake = Fake()
    release.release(place(tmp_path, fake), changed, None, False)
    assert fake.done == []


def test_the_gate_tells_why_from_the_log_of_this_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Record
) -> None:
    there = place(tmp_path, Fake())
    launch = changed.launch.id
    ended = {"launch": launch, "runner_pid": 1, "exit": {"status": 1}}
    Path(there.folder, "running.json").write_text(json.dumps(ended))
    Path(there.folder, "llama-server.log").write_text(
        f"x starting {launch}\n0.00.100.000 E old\nx starting {launch}\n0.00.100.000 E cudaMalloc failed\n"
    )
    with pytest.raises(GateFailed) as error:
        prove.prove(there, changed, 5, {})
    assert "exit status 1. The cause is not a known one. The log shows:\n    cudaMalloc failed" in str(error.value)
    assert "old" not in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{", "7", '"x"'])
def test_a_state_file_of_another_shape_is_none(
    tmp_path: Path, changed: Record, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Callable[[], float] = iter(range(0, 1000, 100)).__next__
    monkeypatch.setattr(prove.wait.until_ready, "__defaults__", (clock, lambda seconds: None))
    there = place(tmp_path, Fake())
    Path(there.folder, "running.json").write_text(content)
    changed = with_launch(changed, url="http://127.0.0.1:9")
    with pytest.raises(GateFailed, match="did not return 200 within 5 s: nothing answers"):
        prove.prove(there, changed, 5, {})
