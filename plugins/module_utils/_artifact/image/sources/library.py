# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image in a library of SIF files, which Apptainer brings as it is configured for it (library).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...._result import OperatorError, Problem
from ...option_names import ImageOptionNames
from .apptainer import ApptainerImage

# A tag that names the image by its digest, so that it cannot move.
PIN = re.compile(r":sha256\.[0-9a-f]{64}$")


@dataclass(frozen=True)
class LibraryImage(ApptainerImage):
    """A library cannot be asked whether a tag moved."""

    schemes = ("library",)
    can_be_asked = False

    @classmethod
    def parse(cls, scheme: str, address: str, option: str) -> LibraryImage:
        """The source of an address. Raises OperatorError about ``option``."""
        if not re.fullmatch(r"[\w./:@-]+", address.partition("://")[2]):
            remedy = "Write library://entity/collection/container:tag."
            raise OperatorError(Problem(option, f"{address!r} is not the address of an image in a library", remedy))
        return cls(address, address)

    @property
    def file_name(self) -> tuple[str, str]:
        return self.shown.partition("@")[0].rpartition("/")[2].partition(":")[0], ".sif"

    def problems(self, sha256: str | None, pull: str, names: ImageOptionNames) -> list[Problem]:
        if sha256 or pull != "always" or PIN.search(self.address):
            return []
        text = f"it cannot be always with {self.shown}, as a library does not report whether a tag moved"
        return [Problem(names.pull, text, f"Give {names.sha256}, or leave {names.pull} at missing.")]
