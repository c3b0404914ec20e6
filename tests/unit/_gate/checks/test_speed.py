# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Token rates, and what counts as slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import speed
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import ApiClient, NotProven
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import STREAM, Server, piece


def measure(server: Server) -> dict[str, float | None]:
    return speed.measure(ApiClient(server.url, None), 5)


def test_the_servers_own_rate(server: Server) -> None:
    assert measure(server)["tokens_per_second"] == 200.0


def test_a_build_that_reports_no_rate(server: Server) -> None:
    server.stream = STREAM[:-1]
    rate = measure(server)["tokens_per_second"]
    assert rate is None or rate > 0
    server.stream = STREAM[:2]
    assert measure(server)["tokens_per_second"] is None


def test_the_first_token_of_a_model_that_reasons(server: Server) -> None:
    server.stream = (piece(role="assistant", content=None), piece(reasoning_content="hm"))
    assert measure(server)["time_to_first_token"] is not None


def test_a_stream_without_text(server: Server) -> None:
    server.stream = (STREAM[0], *STREAM[3:])
    with pytest.raises(NotProven, match="^The streamed completion has no text"):
        measure(server)


@pytest.mark.parametrize("wrong", [{}, {"choices": [{}]}, {"choices": [{"delta": []}]}, {"choices": 7}], ids=str)
def test_events_of_another_format(server: Server, wrong: object) -> None:
    server.stream = (STREAM[1], wrong)
    with pytest.raises(NotProven, match="An event of the answer is not in the format of llama-server"):
        measure(server)


@pytest.mark.parametrize(
    ("rate", "last", "allowed", "expected"),
    [
        (90.0, 100.0, 0.1, False),
        (89.9, 100.0, 0.1, True),
        (200.0, 100.0, 0.1, False),
        (1.0, 100.0, None, False),
        (1.0, None, 0.1, False),
        (None, 100.0, 0.1, False),
        (1.0, 0.0, 0.1, False),
    ],
)
def test_slower(rate: float | None, last: float | None, allowed: float | None, expected: bool) -> None:
    assert speed.slower(rate, last, allowed) is expected


def best(rates: Sequence[float | None], last: float | None, allowed: float | None) -> tuple[float | None, int]:
    left = list(rates)

    def take() -> Mapping[str, float | None]:
        rate = left.pop(0)
        return {"tokens_per_second": rate, "time_to_first_token": rate}

    return speed.best(take, last, allowed, "2026")["tokens_per_second"], len(rates) - len(left)


@pytest.mark.parametrize(
    ("rates", "last", "allowed", "expected"),
    [
        ([100.0, 1.0], 100.0, 0.1, (100.0, 1)),
        ([50.0, 95.0, 1.0], 100.0, 0.1, (95.0, 2)),
        ([50.0, 1.0, 90.0], 100.0, 0.1, (90.0, 3)),
        ([50.0, 90.0], None, 0.1, (50.0, 1)),
        ([50.0, 90.0], 100.0, None, (50.0, 1)),
        ([None, 90.0], 100.0, 0.1, (None, 1)),
    ],
)
def test_a_slow_server_is_measured_again(
    rates: Sequence[float | None], last: float | None, allowed: float | None, expected: tuple[float | None, int]
) -> None:
    assert best(rates, last, allowed) == expected


def test_a_server_that_stays_slow() -> None:
    with pytest.raises(NotProven, match=r"generates 70 tokens per second \(best of 3\), 30 % less than the 100"):
        best([50.0, 70.0, 60.0], 100.0, 0.1)
