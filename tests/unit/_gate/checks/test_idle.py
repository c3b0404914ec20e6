# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots that are busy, and slots that are stuck. The time is the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import idle
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import idle as idle_slot


class Replies:
    """The replies of /slots, one after another; the last one stays."""

    def __init__(self, *replies: Any) -> None:
        self.replies, self.now, self.count = list(replies), 0.0, 0

    def __call__(self) -> Any:
        self.count += 1
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self) -> int:
        """Wait for the slots; returns how often they were read."""
        idle.wait(self, lambda: self.now, self.sleep)
        return self.count


def busy(number: int, task: int, decoded: int) -> dict[str, Any]:
    return {"id": number, "is_processing": True, "id_task": task, "next_token": [{"n_decoded": decoded}]}


def test_idle_slots() -> None:
    assert Replies([idle_slot(0), idle_slot(1)]).wait() == 1
    assert Replies([]).wait() == 1


def test_slots_that_make_progress_or_become_idle() -> None:
    assert Replies([busy(0, 1, 5)], [idle_slot(0)]).wait() == 2
    assert Replies([busy(0, 1, 5)], [busy(0, 1, 6)]).wait() == 2
    assert Replies([busy(0, 1, 5)], [busy(0, 2, 5)]).wait() == 2
    assert Replies([busy(0, 1, 5), busy(1, 2, 5)], [busy(0, 1, 6), busy(1, 2, 5)], [busy(1, 2, 6)]).wait() == 3


def test_a_stuck_slot() -> None:
    replies = Replies([busy(0, 1, 5), busy(3, 2, 5)], [busy(0, 1, 6), busy(3, 2, 5)])
    with pytest.raises(NotProven, match="^Slot 3 has been busy for 60 s without progress"):
        replies.wait()
    assert replies.now == pytest.approx(idle.STUCK, abs=1)


def test_a_slot_of_an_older_build_has_one_next_token() -> None:
    slot = {"id": 0, "is_processing": True, "id_task": 1, "next_token": {"n_decoded": 5}}
    assert idle.busy([slot]) == {0: (1, None, 5)}
    assert idle.busy([{**slot, "next_token": None}]) == {0: (1, None, None)}


@pytest.mark.parametrize("value", [{}, 7, None, [7]], ids=str)
def test_another_format(value: Any) -> None:
    with pytest.raises(NotProven, match="^/slots is not in the format of llama-server"):
        idle.busy(value)
