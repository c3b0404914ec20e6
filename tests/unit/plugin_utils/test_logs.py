# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._logs import files, lines
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._told import told

FLASH = {"name": "4403-flash", "port": 4403, "state": "running", "log": ["loading", "ready"]}


def test_each_line_has_its_host_and_port_in_front():
    hosts = {"gpu-b": {"instances": [FLASH]}, "gpu-a": {"instances": [{**FLASH, "port": 4402}]}}
    assert lines(hosts) == [
        *("gpu-a 4402 | loading", "gpu-a 4402 | ready"),
        *("gpu-b 4403 | loading", "gpu-b 4403 | ready"),
    ]


def test_what_has_no_log_is_a_line_too():
    broken = {"name": "x", "state": "broken", "problem": "its record is of a newer version"}
    hosts = {
        "a": {"instances": [{**FLASH, "state": "stopped", "log": []}]},
        "b": {"instances": [broken]},
        "c": {"instances": []},
        "d": {"problem": "cannot be reached: no route"},
    }
    assert lines(hosts) == [
        "a 4403 | (stopped: there is no log that can be read)",
        "b x | (its record is of a newer version: there is no log that can be read)",
        "c | no instance",
        "d | cannot be reached: no route",
    ]
    assert files(hosts) == {}


def test_a_file_for_each_log():
    assert files({"gpu-a": {"instances": [FLASH]}}) == {"gpu-a-4403-flash.log": "loading\nready\n"}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"instances": [FLASH]}, {"instances": [FLASH]}),
        ({"unreachable": True, "msg": "no route\nmore"}, {"problem": "cannot be reached: no route"}),
        ({"failed": True, "msg": "no python"}, {"problem": "no python"}),
        (None, {"problem": "was not asked"}),
    ],
)
def test_what_a_host_told(said, found):
    assert told(said) == found
