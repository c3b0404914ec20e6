# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances in a host's registered result, or why there are none."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._results import instances_of

FLASH = {"name": "4403-flash", "port": 4403, "state": "running"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"instances": [FLASH]}, {"instances": [FLASH]}),
        ({"unreachable": True, "msg": "no route\nmore"}, {"problem": "unreachable: no route"}),
        ({"unreachable": True, "msg": "\n"}, {"problem": "unreachable: no result"}),
        ({"failed": True, "msg": "no python"}, {"problem": "no python"}),
        ({}, {"problem": "no result"}),
        (None, {"problem": "no result"}),
    ],
)
def test_instances_of(result: Any, expected: dict[str, Any]) -> None:
    assert instances_of(result) == expected
