# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for a started server, with the test's own clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import wait

OURS: dict[str, Any] = {
    "launch": "new",
    "runner_pid": 10,
    "runner_start": 1000,
    "boot": "b",
    "ready": None,
    "exit": None,
}
READY = {**OURS, "ready": 5.0}
ENDED = {**OURS, "exit": {"status": 1, "at": 5.0}}


class Start:
    """State file and status of /health at each second of a start; the last entry stays."""

    def __init__(
        self, accounts: Sequence[Mapping[str, Any]], codes: Sequence[int | None], given_up: str | None = None
    ) -> None:
        self.accounts, self.codes, self.state, self.now, self.asked = accounts, codes, given_up, 100.0, 0

    def at(self, values: Sequence[Any]) -> Any:
        return values[min(int(self.now - 100 + 1e-6), len(values) - 1)]

    def given_up(self) -> str | None:
        self.asked += 1
        return self.state

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, timeout: float = 60, before: Mapping[str, Any] | None = None) -> wait.Outcome:
        return wait.until_ready(
            lambda: self.at(self.accounts),
            lambda: self.at(self.codes),
            self.given_up,
            "new",
            timeout,
            before or {},
            lambda: self.now,
            self.sleep,
        )


def test_ready() -> None:
    outcome = Start([{}, OURS, OURS, READY], [None, 503, 503, 200]).wait()
    assert (outcome.ready, outcome.reason) == (True, "")
    assert outcome.seconds == pytest.approx(3.0)


def test_503_is_not_ready() -> None:
    outcome = Start([READY], [503]).wait(timeout=10)
    assert not outcome.ready
    assert outcome.reason == "/health did not return 200 within 10 s: the model is still loading (503)"


@pytest.mark.parametrize(("code", "text"), [(None, "nothing answers"), (404, "HTTP 404"), (200, wait.STILL[200])])
def test_the_reason_of_a_timeout(code: int | None, text: str) -> None:
    outcome = Start([OURS], [code]).wait(timeout=10)
    assert (outcome.ready, outcome.reason) == (False, f"/health did not return 200 within 10 s: {text}")
    assert outcome.seconds == pytest.approx(10, abs=0.5)


def test_a_server_that_ended_ends_the_wait() -> None:
    outcome = Start([OURS, OURS, ENDED], [503]).wait()
    assert (outcome.ready, outcome.exit_status) == (False, 1)
    assert outcome.reason == "llama-server ended 2.0 s after its start with exit status 1"


def test_a_server_that_the_manager_has_started_again() -> None:
    outcome = Start([OURS, {**OURS, "runner_pid": 11}], [503]).wait()
    assert (outcome.ready, outcome.exit_status) == (False, None)
    assert outcome.reason == "llama-server ended 1.0 s after its start and its manager has started it again"


def test_the_state_of_another_launch_is_ignored() -> None:
    other = {**READY, "launch": "old"}
    assert not Start([other], [200]).wait(timeout=3).ready
    assert Start([{**ENDED, "launch": "old"}, READY], [200]).wait().ready


def test_the_state_of_the_previous_run_is_ignored() -> None:
    """After a restart of the same launch, the file has the end of the previous run until the new runner writes it."""
    former = {**ENDED, "runner_pid": 9, "exit": {"status": 0, "at": 1.0}}
    assert Start([former, OURS, READY], [200]).wait(before=former).ready
    assert not Start([former, OURS, READY], [200]).wait(before={}).ready


def test_the_same_pid_after_a_reboot_is_another_run() -> None:
    assert Start([READY], [200]).wait(before={**READY, "boot": "a"}).ready


def test_a_runner_that_writes_nothing_and_a_manager_that_gave_up() -> None:
    start = Start([{}], [None], given_up="failed (failed), exit-code")
    outcome = start.wait(timeout=600)
    assert not outcome.ready
    assert outcome.reason == "The manager does not start the server again: failed (failed), exit-code"
    assert outcome.seconds < 10
    assert start.asked == 1


def test_the_manager_is_not_asked_while_the_runner_writes() -> None:
    start = Start([OURS] * 20 + [READY], [503] * 20 + [200], given_up="inactive")
    assert start.wait().ready
    assert start.asked == 0


@pytest.mark.parametrize(("size", "seconds"), [(None, 120), (0, 120), (18 << 30, 408), (193_000_000_000, 2995)])
def test_a_larger_model_may_take_longer(size: int | None, seconds: int) -> None:
    assert wait.default_timeout(size) == seconds
