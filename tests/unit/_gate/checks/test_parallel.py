# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A completion in each slot at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import chat
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import parallel
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ANSWER, PROPS, Server, message
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import a_server


def check(server: Server, slots: int) -> dict[str, Any]:
    return parallel.check(a_server(server.url, props={**PROPS, "total_slots": slots}))


def test_all_requests_are_sent_before_the_first_answer(server: Server) -> None:
    count = 9

    def answer(dummy: Any) -> Any:
        while len(server.bodies(chat.CHAT)) < count:
            if server.end.wait(0.01):
                break
        return ANSWER

    server.answers[chat.CHAT] = answer
    assert check(server, count) == {"at_once": count}


def test_answers_without_tokens(server: Server) -> None:
    server.answers[chat.CHAT] = message("", 0)
    with pytest.raises(NotProven, match=r"^3 of 3 parallel .* failed; the first: The completion has no tokens\."):
        check(server, 3)


def test_white_space_is_an_answer(server: Server) -> None:
    server.answers[chat.CHAT] = message("\n", 8)
    assert check(server, 2) == {"at_once": 2}
