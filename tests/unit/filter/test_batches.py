# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The batches of a rollout, and the errors of one that is not valid."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.llamacpp.plugins.filter.batches import batches


@pytest.mark.parametrize(
    ("rollout", "sizes", "of_twelve"),
    [
        (None, [1, "25%"], [1, 3]),
        ({}, [1, "25%"], [1, 3]),
        ({"canary": 2, "batch": 4}, [2, 4], [2, 4]),
        ({"canary": "2", "batch": "4", "pause": "30"}, [2, 4], [2, 4]),
        ({"canary": 0, "batch": "100%"}, ["100%"], [12]),
        ({"batch": "5%"}, [1, "5%"], [1, 1]),
    ],
)
def test_batches(rollout: Any, sizes: list[Any], of_twelve: list[int]) -> None:
    assert batches(rollout) == sizes
    assert batches(rollout, 12) == of_twelve


def test_all_problems_at_once() -> None:
    wrong = {"canary": -1, "batch": "0%", "pause": True, "canaries": 2}
    with pytest.raises(AnsibleFilterError) as refused:
        batches(wrong)
    assert str(refused.value) == (
        "llamacpp_rollout: unknown key canaries; the keys are canary, batch, pause. canary must be a number of hosts, "
        "0 or more, not -1. batch must be a number of hosts, or a share such as 25%, not '0%'. pause must be a number "
        "of seconds, not True."
    )


@pytest.mark.parametrize("batch", [0, "0", "101%", "a few", "1.5%", True, None])
def test_a_batch_that_is_not_valid(batch: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="batch must be a number of hosts"):
        batches({"batch": batch})


def test_a_rollout_that_is_not_a_mapping() -> None:
    with pytest.raises(AnsibleFilterError, match="must be a mapping of canary, batch and pause, not '25%'"):
        batches("25%")  # type: ignore[arg-type]
