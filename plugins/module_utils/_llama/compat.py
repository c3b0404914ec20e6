# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an image is new enough, and whether the host's driver has the CUDA that it was made for. Pure.

Private to gpufleet.llamacpp; may change at any time. Rules: NVIDIA, CUDA Compatibility (minor versions since 11).
"""

from __future__ import annotations

from .probe import ServerFacts, build_number

# The first release of llama.cpp after what is known to be wrong was mended (b10621, v0.3.0, August 2026): among others
# CVE-2026-21869, which a request alone can use, CVE-2026-27940 and the readers of model files of that summer.
ADVISED_BUILD = 10621


def build_problems(said: ServerFacts, image: str, least: int | None) -> tuple[list[str], list[str]]:
    """Problems and warnings about the build; ``least`` is the lowest that the operator allows."""
    found = build_number(said.build)
    if least is None:
        if found is None or found >= ADVISED_BUILD:
            return [], []
        return [], [
            f"image: {image} has llama.cpp build {found}, in which holes are open that a request or a model file can "
            f"use. Take an image with build {ADVISED_BUILD} or later, or say with min_build what you accept."
        ]
    if found is None:
        tells = f"says {said.build!r}" if said.build else "does not tell"
        return [
            f"min_build: {least} is wanted, and the llama-server in {image} {tells}. Take an image whose --version has "
            "the build's number, or take min_build out."
        ], []
    if found < least:
        return [f"min_build: {image} has llama.cpp build {found}, wanted is {least} or later. Bring a newer image."], []
    return [], []


def driver_problems(said: ServerFacts, image: str, driver: int | None) -> tuple[list[str], list[str]]:
    """Problems and warnings about CUDA; ``driver`` is NVML's number for what the driver has, such as 12080."""
    if said.cuda is None or not driver:
        return [], []
    has = (driver // 1000, driver % 1000 // 10)
    if said.cuda <= has:
        return [], []
    wants, there = (f"{major}.{minor}" for major, minor in (said.cuda, has))
    words = f"image: {image} was made for CUDA {wants}, and this host's driver has {there}."
    if said.cuda[0] == has[0]:
        return [], [f"{words} That works, except for code that the driver has to translate; a newer driver has it all."]
    if said.compatible:
        return [], [f"{words} That works by the image's own libraries (cuda/compat), on data centre GPUs alone."]
    return [f"{words} Update the driver, or take an image made for CUDA {has[0]}."], []
