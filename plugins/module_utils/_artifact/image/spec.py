# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator asks an image to be: the options in canonical form, and what is wrong with them. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..._result import OperatorError, Problem
from ..option_checks import check, check_sha256
from ..option_names import SIF_IMAGE, ImageOptionNames
from .sources import source_of
from .sources.source import ImageSource


@dataclass(frozen=True)
class ImageSpec:
    """An image. ``names``: the options that its problems name."""

    path: str
    state: str = "present"  # present | absent
    pull: str = "missing"  # missing | always | never
    verify: str = "changed"  # changed | always
    source: ImageSource | None = None
    sha256: str | None = None
    public_key: str | None = None  # the file that holds it, if the signature is to be verified
    problems: tuple[Problem, ...] = ()
    names: ImageOptionNames = SIF_IMAGE

    def about_path(self, problem: Problem) -> Problem:
        """The same problem, about the option that gives the image's path."""
        return replace(problem, option=self.names.path)

    def about_source(self, problem: Problem) -> Problem:
        """The same problem, about the option that gives the image's source."""
        return replace(problem, option=self.names.src)


def image_spec(params: Mapping[str, Any]) -> ImageSpec:
    """The spec of sif_image's options."""
    problems, source = check(params), None
    digest = params["sha256"].lower() if params["sha256"] else None
    if params["state"] == "present" and params["src"] is not None:
        try:
            source = source_of(params["src"], "src")
            problems += source.problems(digest, params["pull"], SIF_IMAGE)
        except OperatorError as error:
            problems += error.problems
    problems += check_sha256(digest) if digest else []
    key = params["public_key"] if params["verify_signature"] else None
    return ImageSpec(
        path=params["path"],
        state=params["state"],
        pull=params["pull"],
        verify=params["verify"],
        source=source,
        sha256=digest,
        public_key=key,
        problems=tuple(problems),
    )
