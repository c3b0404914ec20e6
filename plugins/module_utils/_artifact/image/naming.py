# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The path of an instance's image, and the problems of the options that give it. Pure.

Private to gpufleet.llamacpp; may change at any time.

An image from an address is in <home>/shared, under a name that holds its digest. So the image that a running server and
the last release use stays where it is when another one is pulled, and a rollback finds it.
"""

from __future__ import annotations

import hashlib
import os

from ..._host import layout
from ..._result import OperatorError, Problem
from ..file_record import is_sha256
from ..option_names import LLAMACPP_INSTANCE
from .sources import source_of
from .sources.source import ImageSource

# Digits of the digest in a name.
DIGITS = 12


def is_address(image: str) -> bool:
    """Whether the image is given by an address, and not by the path of a file on the host."""
    return "://" in image


def problems(image: str, sha256: str | None, pull: str) -> list[Problem]:
    """What is wrong with the options image, image_sha256 and pull, as far as no path has to be looked at."""
    found: list[Problem] = []
    if not image or image.endswith("/"):
        # The part before an @ may hold a password.
        text = f"{image.rpartition('@')[2]!r} names no file"
        found.append(Problem("image", text, "Name a SIF file of the host, or the address of one."))
    elif is_address(image):
        try:
            source = source_of(image, "image")
            found += source.problems(sha256, pull, LLAMACPP_INSTANCE)
            if source.needs_sha256 and not sha256:
                text = f"an image from {source.shown} needs the sha256 of its file"
                found.append(Problem("image_sha256", text, "Give it."))
        except OperatorError as error:
            found += error.problems
    if sha256 and not is_sha256(sha256.lower()):
        found.append(Problem("image_sha256", f"{sha256!r} is not a sha256", "A sha256 has 64 hexadecimal digits."))
    return found


def path_of(image: str, home: str) -> str:
    """The path of an image that is given by path; a relative one begins at the home. An address stays as it is."""
    return image if is_address(image) else os.path.join(home, os.path.expanduser(image))


def place(home: str, source: ImageSource, digest: str | None) -> str:
    """The path of an image from an address. ``digest``: of its file, or of its manifest if Apptainer builds the file.

    Without one, the address is hashed: of a library's image nothing else is known before it is there.
    """
    known = (digest or hashlib.sha256(source.shown.encode()).hexdigest()).rpartition(":")[2]
    stem, extension = source.file_name
    return os.path.join(home, layout.SHARED, f"{stem}-{known[:DIGITS]}{extension}")
