# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan over everything that can be observed: complete, once, and with reasons that an operator understands."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.manager import UnitState
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import plan
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import Record, Release
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.render import Wanted
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import (
    FOLDER,
    a_record,
    a_spec,
    found,
    with_setup,
)

RUNNER, SCRIPT = f"{FOLDER}/runner.py", f"{FOLDER}/run.sh"
FILES = {RUNNER: b"runner, " + plan.MARK, SCRIPT: b"script, " + plan.MARK}
ON = UnitState(installed=True, enabled=True, active=True, pid=1)
OFF = UnitState(installed=True)


def wanted(**changes: Any) -> Wanted:
    return Wanted(a_record(**changes), dict(FILES), FOLDER)


def running(record: Record | None = None, **changes: Any) -> plan.Observed:
    """A host where the instance runs, is proven, and everything is as in the record."""
    record = record or a_record(release=True)
    values: dict[str, Any] = {
        "record": record,
        "files": dict(FILES),
        "folder_exists": True,
        "unit": ON,
        "running_launch": record.launch.id,
    }
    return plan.Observed(**{**values, **changes})


NOTHING = plan.Observed(files=dict.fromkeys(FILES))


def decide(state: str, want: Wanted | None, seen: plan.Observed) -> list[plan.Step]:
    return plan.decide(state, want, seen, FOLDER)


def kinds(steps: Sequence[plan.Step]) -> list[str]:
    return [step.kind for step in steps]


def proven(record: Record) -> Record:
    return replace(record, release=Release("2026-10-02T12:00:00Z", 1.0, {}, None, record.setup))


def carried_out(state: str, want: Wanted, seen: plan.Observed, steps: Sequence[plan.Step]) -> plan.Observed:
    """What a host looks like after the steps, by the meaning of each kind."""
    for step in steps:
        unit = seen.unit
        if step.kind == "make_folder":
            seen = replace(seen, folder_exists=True)
        elif step.kind == "write":
            seen = replace(seen, files={**seen.files, step.path: step.content})
        elif step.kind == "record":
            seen = replace(seen, record=want.record)
        elif step.kind == "install_unit":
            seen = replace(seen, unit=replace(unit, installed=True, enabled=step.enabled), unit_differences=())
        elif step.kind == "remove_unit" and state != "absent":
            seen = replace(seen, former_active=False, running_launch=None)
        elif step.kind == "remove_unit":
            seen = replace(seen, unit=UnitState(), running_launch=None)
        elif step.kind == "stop":
            seen = replace(seen, unit=replace(unit, active=False), running_launch=None)
        elif step.kind == "remove":
            seen = replace(seen, folder_exists=False, files=dict.fromkeys(FILES), record=None)
        elif step.kind in ("start", "prove"):
            seen = replace(seen, unit=replace(unit, active=True), running_launch=want.record.launch.id)
            seen = replace(seen, record=proven(want.record))
        else:
            raise ValueError(step.kind)
    return seen


OLD = a_record(release=True, context_size=4096)
RECORDS = (None, a_record(), a_record(release=True), OLD, a_record("systemd", release=True))
UNITS = [
    UnitState(installed, enabled, active)
    for installed, enabled, active in itertools.product((False, True), repeat=3)
    if installed or not (enabled or active)
]
HOSTS = [
    plan.Observed(record, files, folder or record is not None, unit, differences, former, launch)
    for record in RECORDS
    for files in (FILES, dict.fromkeys(FILES), {**FILES, SCRIPT: b"old, " + plan.MARK})
    for folder in (False, True)
    for unit in UNITS
    for differences in ((), ("x differs",))
    for former in ((False, True) if record and record.manager == "systemd" else (False,))
    for launch in ((None, OLD.launch.id, a_record().launch.id) if unit.active or former else (None,))
]
ORDER = ["make_folder", "write", "record", "install_unit", "remove_unit", "stop", "remove", "start", "prove"]


@pytest.mark.parametrize("state", ["started", "present", "stopped", "absent"])
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(state: str) -> None:
    want = wanted()
    refused = 0
    for seen in HOSTS:
        try:
            steps = decide(state, want, seen)
        except Refusal:
            refused += 1
            continue
        after = carried_out(state, want, seen, steps)
        assert decide(state, want, after) == [], (seen, steps)
        assert all(step.what and step.why for step in steps)
    assert refused < len(HOSTS) / 2
    assert bool(refused) == (state == "present")


def test_another_drain_timeout_is_written_down_and_restarts_nothing() -> None:
    steps = decide("started", wanted(drain_timeout=300), running())
    assert [(step.kind, step.why) for step in steps] == [("record", "drain_timeout: 60 -> 300")]
    both = decide("started", wanted(drain_timeout=300, context_size=4096), running())
    assert [(step.kind, step.why) for step in both] == [
        ("record", "context_size: 65536 -> 4096; drain_timeout: 60 -> 300"),
        ("start", "context_size: 65536 -> 4096"),
    ]


def test_a_new_unit_comes_with_the_reason_for_its_manager() -> None:
    why = "supervisor keeps it running because the user operator does not linger (loginctl enable-linger operator)"
    first = decide("started", replace(wanted(), manager_why=why), NOTHING)
    assert [step.why for step in first if step.kind == "install_unit"] == [f"the unit is not there; {why}"]
    chosen = decide("started", wanted(), NOTHING)
    assert [step.why for step in chosen if step.kind == "install_unit"] == ["the unit is not there"]


def cut_off(state: str, want: Wanted, seen: plan.Observed, steps: list[plan.Step]) -> list[plan.Observed]:
    """Every host that a run can leave which ends somewhere in the middle of these steps."""
    left = [carried_out(state, want, seen, steps[:count]) for count in range(len(steps) + 1)]
    if steps and steps[-1].kind == "start":
        # Between stop and start, and between start and proof.
        stopped = replace(left[-2], unit=replace(left[-2].unit, active=False), running_launch=None, former_active=False)
        unproven = replace(stopped, unit=replace(stopped.unit, active=True), running_launch=want.record.launch.id)
        left += [stopped, unproven]
    return left


def after_power_cut(seen: plan.Observed) -> plan.Observed:
    """The same host after it has booted again: what is enabled runs, as its record says."""
    up = seen.unit.enabled and seen.record is not None
    launch = seen.record.launch.id if up and seen.record else None
    return replace(seen, unit=replace(seen.unit, active=up), running_launch=launch, former_active=False)


@pytest.mark.parametrize("state", ["started", "present", "stopped", "absent"])
def test_the_next_run_finishes_what_was_cut_off_anywhere(state: str) -> None:
    want, tried = wanted(), 0
    for seen in HOSTS:
        try:
            steps = decide(state, want, seen)
        except Refusal:
            continue
        for half in cut_off(state, want, seen, steps):
            for there in (half, after_power_cut(half)):
                try:
                    rest = decide(state, want, there)
                except Refusal:
                    # present stops nothing, so it refused before the cut too, but for a unit that the boot has started.
                    assert state == "present"
                    continue
                after = carried_out(state, want, there, rest)
                assert decide(state, want, after) == [], (seen, steps, there, rest)
                tried += 1
                if state == "started":
                    assert after.active and after.unit.enabled
                    assert after.running_launch == want.record.launch.id
                    assert after.record and after.record.release and after.record.release.setup == want.record.setup
                    assert all(after.files[path] == content for path, content in want.files.items())
    assert tried > len(HOSTS)


@pytest.mark.parametrize("state", ["started", "restarted"])
def test_a_started_instance_runs_is_proven_and_starts_at_boot(state: str) -> None:
    want = wanted()
    for seen in HOSTS:
        after = carried_out(state, want, seen, decide(state, want, seen))
        assert after.unit.active and after.unit.enabled and not after.former_active and after.folder_exists
        assert after.running_launch == want.record.launch.id
        assert after.record and after.record.release
        assert after.record.release.setup.launch.id == want.record.launch.id
        assert after.files == FILES


def test_restarted_starts_always_and_once() -> None:
    for seen in HOSTS:
        assert kinds(decide("restarted", wanted(), seen)).count("start") == 1


def test_present_starts_and_stops_nothing() -> None:
    for seen in HOSTS:
        try:
            steps = decide("present", wanted(), seen)
        except Refusal:
            assert seen.former_active
            continue
        assert not {"start", "stop", "prove"} & set(kinds(steps))
        assert not (seen.former_active and "remove_unit" in kinds(steps))
        assert all(step.enabled == seen.unit.enabled for step in steps if step.kind == "install_unit")


def test_the_order_of_the_steps() -> None:
    """What can fail comes before what touches the running server."""
    for seen in HOSTS:
        steps = kinds(decide("started", wanted(), seen))
        if "start" in steps:
            assert steps[-1] == "start"
        touching = [steps.index(kind) for kind in ("remove_unit", "start") if kind in steps]
        safe = [steps.index(kind) for kind in ("make_folder", "write", "install_unit") if kind in steps]
        assert not touching or not safe or max(safe) < min(touching)
        if "make_folder" in steps:
            assert steps[0] == "make_folder"


def test_a_first_deployment() -> None:
    steps = decide("started", wanted(), NOTHING)
    assert [step.what for step in steps] == [
        f"Create the folder {FOLDER}",
        "Create runner.py",
        "Create run.sh",
        "Create instance.json",
        "Install the unit (supervisor)",
        "Start llama-server and prove that it works",
    ]
    assert steps[-1].why == "it is not running"


def test_nothing_to_do() -> None:
    assert decide("started", wanted(), running()) == []
    assert decide("present", wanted(), running()) == []
    assert decide("stopped", None, running(unit=OFF, running_launch=None)) == []
    assert decide("absent", None, NOTHING) == []


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"context_size": 32768}, "context_size: 65536 -> 32768"),
    ({"context_size": None}, "context_size: 65536 -> not set"),
    ({"alias": "glm"}, "alias: not set -> glm"),
    (
        {"args": ["--jinja"]},
        "args: --jinja --fit on --temp 1.0 --top-p 0.95 --min-p 0.01 --repeat-penalty 1.0 -> --jinja",
    ),
    ({"args": []}, "--repeat-penalty 1.0 -> not set"),
    ({"env": {"A": "1", "B": "x"}}, "env: not set -> A=1 B=x"),
    ({"gpus": ["0"]}, "gpus: 0 1 2 3 -> 0"),
    ({"port": 4404, "threads": 8}, "port: 4403 -> 4404; threads: 32 -> 8"),
    ({"model": "/data/models/x.gguf"}, "model: /data/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf -> /data/models/x.gguf"),
    ({"on": found(image_sha256="3" * 64)}, "image file replaced: sha256 111111111111 -> 333333333333"),
    ({"on": found(model_sha256="3" * 64)}, "model file replaced: sha256 222222222222 -> 333333333333"),
    ({"on": found(certificates=("/etc/x:/etc/x:ro",))}, "the container's command changed (see --diff)"),
    ({"on": found(user_home="/elsewhere")}, "the environment of the container's command changed"),
]


@pytest.mark.parametrize(("changes", "why"), CHANGED, ids=[row[1] for row in CHANGED])
def test_a_change_is_one_restart_with_its_reason(changes: dict[str, Any], why: str) -> None:
    steps = decide("started", wanted(**changes), running())
    assert kinds(steps) == ["record", "start"]
    assert steps[1].what == "Restart llama-server and prove that it works"
    assert steps[0].why == steps[1].why
    assert why in steps[1].why


def test_an_option_that_is_taken_out_again_is_a_change() -> None:
    steps = decide("started", wanted(), running(a_record(release=True, alias="glm", env={"A": "1"})))
    assert steps[-1].why == "alias: glm -> not set; env: A=1 -> not set"


def test_asking_for_the_manager_that_is_there_already_restarts_nothing() -> None:
    steps = decide("started", wanted(manager="supervisor"), running(a_record(release=True)))
    assert steps == []
    asked = with_setup(a_record(), spec=a_spec(manager="supervisor"))
    other = Wanted(asked, dict(FILES), FOLDER)
    assert kinds(decide("started", other, running())) == ["record"]


def test_a_user_counts_only_where_a_unit_has_one() -> None:
    assert plan.changes(a_record(), a_record(user="other")) == []
    assert plan.changes(a_record("systemd"), a_record("systemd", user="other")) == ["user: llamacpp -> other"]


def test_another_manager() -> None:
    seen = running(a_record("systemd", release=True), unit=UnitState(), former_active=True)
    steps = decide("started", wanted(), seen)
    assert kinds(steps) == ["install_unit", "remove_unit", "record", "start"]
    assert [step.why for step in steps[1:]] == ["manager: systemd -> supervisor"] * 3
    with pytest.raises(Refusal, match="systemd -> supervisor: the instance runs, and state present stops nothing"):
        decide("present", wanted(), seen)


def test_what_was_started_and_never_proven_is_proven_now() -> None:
    """As after a connection that broke while the server was loading."""
    steps = decide("started", wanted(), running(a_record()))
    assert kinds(steps) == ["prove"]
    changed = replace(a_record(context_size=1), release=a_record(release=True).release)
    assert kinds(decide("started", wanted(context_size=1), running(changed))) == ["prove"]


def test_a_process_from_before_the_last_change() -> None:
    steps = decide("started", wanted(), running(running_launch="0123456789ab"))
    assert [step.why for step in steps] == ["the running process has launch 0123456789ab, from before the last change"]
    steps = decide("started", wanted(), running(running_launch=None))
    assert "launch unknown" in steps[0].why


def test_what_runs_without_a_record() -> None:
    steps = decide("started", wanted(), replace(running(), record=None, running_launch="x"))
    assert steps[-1].why == "what runs is not what is wanted, and there is no record of it"


def test_a_server_whose_manager_is_gone_is_started_again() -> None:
    steps = decide("started", wanted(), running(unit=replace(ON, orphaned=True, detail="nobody keeps it")))

    assert [(step.kind, step.why) for step in steps] == [("start", "nobody keeps it")]


def test_a_unit_that_differs_is_one_step() -> None:
    seen = running(unit=UnitState(True, False, True), unit_differences=("it does not start with the host",))
    steps = decide("started", wanted(), seen)
    assert [(step.what, step.why, step.enabled) for step in steps] == [
        ("Update the unit", "it does not start with the host", True)
    ]


def test_stopped() -> None:
    steps = decide("stopped", None, running())
    assert [(step.kind, step.what) for step in steps] == [
        ("stop", "Stop llama-server"),
        ("install_unit", "Disable the unit"),
    ]
    assert not steps[1].enabled


def test_absent() -> None:
    steps = decide("absent", None, running())
    assert [step.what for step in steps] == ["Stop llama-server", "Remove the unit", f"Remove the folder {FOLDER}"]


def test_a_state_that_needs_a_spec() -> None:
    with pytest.raises(ValueError, match="state started needs a whole spec"):
        decide("started", None, NOTHING)


@pytest.mark.parametrize("state", ["present", "started", "restarted"])
def test_a_hand_written_script_is_not_replaced(state: str) -> None:
    seen = replace(NOTHING, folder_exists=True, files={**NOTHING.files, SCRIPT: b"#!/bin/bash\nsingularity exec ..."})
    with pytest.raises(Refusal, match=f"{SCRIPT} was not written by this collection"):
        decide(state, wanted(), seen)
    assert decide(state, wanted(), running(files={**FILES, SCRIPT: b"edited"}))[0].path == SCRIPT


def test_what_was_started_and_is_not_ready_has_to_be_proven():
    (step,) = decide("started", wanted(), replace(running(), ready=False))
    assert (step.kind, step.why) == ("prove", "it was started, and is not ready yet")


def test_what_ended_and_waits_for_its_next_start_is_started():
    (step,) = decide("started", wanted(), replace(running(), ready=False, ended=1))
    assert (step.kind, step.why) == ("start", "it ended with exit status 1, and is down")


def test_another_gate_is_recorded_and_nothing_is_started() -> None:
    have = replace(a_record(release=True), gate={"level": "full", "prompt_tokens": None})
    want = replace(wanted(release=True), record=replace(have, gate={"level": "completion", "prompt_tokens": 128}))
    steps = decide("started", want, running(have))
    assert kinds(steps) == ["record"]
    assert steps[0].why == "gate level: full -> completion; gate prompt_tokens: not set -> 128"
    assert decide("started", want, running(want.record)) == []


def test_a_file_that_is_another_since_the_start_is_read_by_a_restart() -> None:
    (step,) = decide("started", wanted(), running(replaced=("/data/models/x.gguf",)))
    assert step.kind == "start"
    assert step.why == "replaced since it was started: /data/models/x.gguf"
    assert decide("present", wanted(), running(replaced=("/data/models/x.gguf",))) == []
