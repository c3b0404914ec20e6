# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of logs: a line for each line of a log, and a file for each log."""

from __future__ import annotations

from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._logs import files, lines

FLASH = {"name": "4403-flash", "port": 4403, "state": "running", "log": ["loading", "ready"]}


def test_each_line_begins_with_its_host_and_port():
    hosts = {"gpu-b": {"instances": [FLASH]}, "gpu-a": {"instances": [{**FLASH, "port": 4402}]}}
    assert lines(hosts) == [
        *("gpu-a 4402 | loading", "gpu-a 4402 | ready"),
        *("gpu-b 4403 | loading", "gpu-b 4403 | ready"),
    ]


def test_what_has_no_log_has_a_line_too():
    broken = {"name": "x", "state": "broken", "problem": "its record is of a newer version"}
    hosts = {
        "a": {"instances": [{**FLASH, "state": "stopped", "log": []}]},
        "b": {"instances": [broken]},
        "c": {"instances": []},
        "d": {"problem": "unreachable: no route"},
    }
    assert lines(hosts) == [
        "a 4403 | (no log: stopped)",
        "b x | (no log: its record is of a newer version)",
        "c | no instance",
        "d | unreachable: no route",
    ]
    assert files(hosts) == {}


def test_a_file_for_each_log():
    assert files({"gpu-a": {"instances": [FLASH]}}) == {"gpu-a-4403-flash.log": "loading\nready\n"}
