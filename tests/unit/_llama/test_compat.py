# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an image is new enough, and the driver too."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import compat
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.probe import ServerFacts
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import IMAGE


@pytest.mark.parametrize(
    ("build", "least", "problem", "warning"),
    [
        ("11669 (x)", None, "", ""),
        (str(compat.ADVISED_BUILD), None, "", ""),
        ("10434 (x)", None, "", "has llama.cpp build 10434, which has known vulnerabilities"),
        (None, None, "", ""),
        ("10434 (x)", 10000, "", ""),
        ("10434 (x)", 10434, "", ""),
        ("10434 (x)", 10435, "has llama.cpp build 10434, and 10435 or later is required. Use a newer image.", ""),
        (None, 10435, "the version is not known. Use an image whose --version", ""),
        ("0.3.0 (x)", 10435, "the version '0.3.0 (x)' has no build number. Use an image", ""),
    ],
)
def test_the_build(build: str | None, least: int | None, problem: str, warning: str) -> None:
    problems, warnings = compat.check_build(ServerFacts(build=build), IMAGE, least)
    assert (len(problems), len(warnings)) == (bool(problem), bool(warning))
    assert all(problem in str(found) and IMAGE in found.text for found in problems)
    assert all(warning in said and IMAGE in said for said in warnings)


@pytest.mark.parametrize(
    ("wants", "driver", "problem", "warning"),
    [
        (None, 12080, "", ""),
        ((12, 8), None, "", ""),
        ((12, 8), 12080, "", ""),
        ((11, 8), 12080, "", ""),
        ((12, 4), 13010, "", ""),
        ((12, 9), 12080, "", "made for CUDA 12.9, and this host's driver supports CUDA 12.8. This works, except"),
        (
            (13, 0),
            12080,
            "CUDA 13.0, and this host's driver supports CUDA 12.8. Update the driver, or use an image made",
            "",
        ),
        ((13, 1), 13010, "", ""),
    ],
)
def test_the_driver(wants: tuple[int, int] | None, driver: int | None, problem: str, warning: str) -> None:
    problems, warnings = compat.check_driver(ServerFacts(cuda=wants), IMAGE, driver)
    assert (len(problems), len(warnings)) == (bool(problem), bool(warning))
    assert all(problem in str(found) for found in problems)
    assert all(warning in said for said in warnings)


def test_an_image_with_libraries_for_older_drivers_is_not_refused() -> None:
    problems, warnings = compat.check_driver(ServerFacts(cuda=(13, 0), compatible=True), IMAGE, 12080)
    assert problems == []
    assert "cuda/compat" in warnings[0]
