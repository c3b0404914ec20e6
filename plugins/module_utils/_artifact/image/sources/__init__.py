# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of images: one file for each kind, and its line in SOURCES.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from ...._result import OperatorError, Problem
from .docker import DockerImage
from .file import HostImage
from .http import HttpImage
from .library import LibraryImage
from .oras import OrasImage
from .source import ImageSource

SOURCES = (HttpImage, OrasImage, DockerImage, LibraryImage)


def source_of(address: str, option: str) -> ImageSource:
    """The source of an image, by its absolute path or its address. Raises OperatorError about ``option``."""
    scheme, is_address, _rest = address.partition("://")
    if not is_address:
        if not address.startswith("/"):
            text = f"{address!r} is neither an absolute path on the host nor an address"
            raise OperatorError(Problem(option, text, f"Write a path, or begin with {_schemes()}."))
        return HostImage(address, address)
    for kind in SOURCES:
        if scheme.lower() in kind.schemes:
            return kind.parse(scheme.lower(), address, option)
    raise OperatorError(Problem(option, f"{scheme}:// is not supported", f"Write a path, or begin with {_schemes()}."))


def _schemes() -> str:
    return ", ".join(f"{scheme}://" for kind in SOURCES for scheme in kind.schemes)
