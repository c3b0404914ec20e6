# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is an image new enough, and does the host's driver support the image's CUDA version? Pure.

Private to gpufleet.llamacpp; may change at any time. Rules: NVIDIA, CUDA Compatibility (minor versions since 11).
"""

from __future__ import annotations

from .._result import Problem
from .probe import ServerFacts, build_number

# The first release after the fixes of what is known (b10621, v0.3.0, August 2026): CVE-2026-21869, which a request
# alone can exploit, CVE-2026-27940, and the bugs in the readers of model files of that summer.
ADVISED_BUILD = 10621


def check_build(facts: ServerFacts, image: str, least: int | None) -> tuple[list[Problem], list[str]]:
    """Problems and warnings about the build; ``least`` is the lowest that the operator accepts."""
    build = build_number(facts.build)
    if least is None:
        if build is None or build >= ADVISED_BUILD:
            return [], []
        return [], [
            f"image: {image} has llama.cpp build {build}, which has known vulnerabilities that a request or a model "
            f"file can exploit. Use an image with build {ADVISED_BUILD} or later, or accept this one with min_build."
        ]
    if build is None:
        version = f"version {facts.build!r} has no build number" if facts.build else "version is not known"
        text = f"{least} or later is required, but for the llama-server in {image} the {version}"
        return [Problem("min_build", text, "Use an image whose --version prints the build, or remove min_build.")], []
    if build < least:
        text = f"{image} has llama.cpp build {build}, and {least} or later is required"
        return [Problem("min_build", text, "Use a newer image.")], []
    return [], []


def check_driver(facts: ServerFacts, image: str, driver: int | None) -> tuple[list[Problem], list[str]]:
    """Problems and warnings about CUDA; ``driver`` is the driver's CUDA version as NVML has it, such as 12080."""
    if facts.cuda is None or not driver:
        return [], []
    supported = (driver // 1000, driver % 1000 // 10)
    if facts.cuda <= supported:
        return [], []
    made_for, has = (f"{major}.{minor}" for major, minor in (facts.cuda, supported))
    text = f"{image} was made for CUDA {made_for}, and this host's driver supports CUDA {has}"
    if facts.cuda[0] == supported[0]:
        return [], [f"image: {text}. This works, except for code that the driver compiles (PTX). Update the driver."]
    if facts.compatible:
        return [], [f"image: {text}. This works through the image's cuda/compat libraries, on data centre GPUs only."]
    return [Problem("image", text, f"Update the driver, or use an image made for CUDA {supported[0]}.")], []
