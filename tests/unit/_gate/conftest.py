# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for the tests of the gate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as llama-server does."""
    with serving() as found:
        yield found
