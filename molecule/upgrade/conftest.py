# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every test of this scenario runs on each host: each has the state of another earlier version."""

import pytest


@pytest.fixture(scope="session", params=["gpu1", "gpu2"], ids=["2026-11-25", "2026-11-28"])
def host_name(request) -> str:
    return request.param
