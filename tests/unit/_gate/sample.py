# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server as a check gets it."""

from __future__ import annotations

# pylint: disable=dangerous-default-value # no test changes them
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import ApiClient
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.server import Server
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ARGUMENTS, MODEL, MODELS, PROPS

EXPECTED = Expectation(model=MODEL, arguments=ARGUMENTS, build="11669")
NO_SERVER = "http://127.0.0.1:9"


def a_server(
    url: str = NO_SERVER,
    expected: Expectation = EXPECTED,
    props: Any = PROPS,
    models: Any = MODELS,
    key: str | None = None,
) -> Server:
    """A server that reports ``props`` and ``models``."""
    return Server(ApiClient(url, key), expected, props, models, lambda: ())
