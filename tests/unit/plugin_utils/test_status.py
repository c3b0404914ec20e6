# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of the status: a line for each instance, its details below, and what shrinks on a narrow terminal."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._status import ranges, short_time, table

GIB = 1 << 30
FLASH = {
    "name": "4403-glm-4.7-flash-q4",
    "state": "running",
    "health": "ok",
    "uptime": 90000,
    "pid": 17,
    "context_size": 65536,
    "gpus": ["0", "1", "2", "3"],
    "model": {"name": "GLM-4.7-Flash", "quantization": "Q4_K_M"},
    "release": {"proven": "2026-11-24T20:15:00Z", "completion": {"tokens_per_second": 41.2}},
    "gpu_memory": [{"index": index, "memory": 5 * GIB, "total": 140 * GIB} for index in range(4)],
    "drift": [],
}


def test_an_instance_has_a_line_and_its_memory_below():
    lines = table({"gpu-a": {"instances": [FLASH]}}, 120)
    assert lines[0].split() == ["HOST", "INSTANCE", "STATE", "UP", "MODEL", "CTX", "TOK/S", "RELEASE"]
    assert lines[1].split() == [
        *("gpu-a", "4403-glm-4.7-flash-q4", "running", "1d", "Q4_K_M", "GLM-4.7-Flash", "65536", "41", "2026-11-24"),
    ]
    assert lines[2:] == ["  GPU 0-3: 5.0  5.0  5.0  5.0 GiB, of 140 each"]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_is_longer_than_the_terminal(width):
    hosts = {"gpu-a.cluster.example.org": {"instances": [{**FLASH, "drift": ["it should run and does not " * 8]}]}}
    assert max(len(line) for line in table(hosts, width)) <= width


def test_a_cut_column_has_an_ellipsis_and_the_state_is_never_cut():
    line = table({"gpu-a.cluster.example.org": {"instances": [FLASH]}}, 80)[1]
    assert "…" in line
    assert " running " in line
    assert line.endswith("2026-11-24")


def test_the_health_is_shown_if_it_adds_something():
    assert "starting, loading" in table({"a": {"instances": [{**FLASH, "state": "starting", "health": "loading"}]}})[1]


def test_a_server_without_memory_on_its_gpus_is_reported():
    found = table({"a": {"instances": [{**FLASH, "gpu_memory": []}]}}, 120)
    assert found[2] == "  GPU 0, 1, 2, 3: NVML shows none of its memory there"


def test_a_stopped_instance_shows_its_last_release():
    one = {**FLASH, "state": "stopped", "health": None, "uptime": None, "pid": None, "gpu_memory": []}
    assert table({"a": {"instances": [one]}}, 120)[1:] == [
        "a     4403-glm-4.7-flash-q4  stopped  -   Q4_K_M GLM-4.7-Flash  65536  41     2026-11-24"
    ]


def test_an_unreachable_host_and_one_without_instances_have_a_line_too():
    lines = table({"b": {"problem": "unreachable: timed out"}, "a": {"instances": []}})
    assert lines[1:] == ["a  no instance", "b  unreachable: timed out"]


def test_a_broken_record_is_reported():
    broken = {"name": "x", "state": "broken", "problem": "instance.json is damaged"}
    assert table({"a": {"instances": [broken]}})[2] == "  instance.json is damaged"


def test_each_drift_has_a_line():
    lines = table({"a": {"instances": [{**FLASH, "gpu_memory": [], "gpus": [], "drift": ["one", "two"]}]}})
    assert lines[2:] == ["  drift: one", "  drift: two"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (260000, "3d")]
)
def test_times_are_short(seconds, shown):
    assert short_time(seconds) == shown


@pytest.mark.parametrize(("numbers", "shown"), [([], ""), ([2], "2"), ([3, 0, 1, 2], "0-3"), ([0, 2, 3], "0,2-3")])
def test_numbers_in_short(numbers, shown):
    assert ranges(numbers) == shown
