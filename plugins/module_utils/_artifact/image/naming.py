# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option ``image``: what is wrong with it, and where on the host the image lies. Pure.

Private to gpufleet.llamacpp; may change at any time.

What comes from an address lies in <home>/shared under a name that holds its digest. So the image that a running server
and the last release use stays where it is when another one is pulled, and there is a way back.
"""

from __future__ import annotations

import hashlib
import os
from urllib.parse import urlsplit

from ..._host import layout
from ..._result import Problem
from ..file_record import is_sha256
from .sources import Origin, origin_of

# Digits of the digest in a name.
DIGITS = 12


def is_address(image: str) -> bool:
    """Whether the image comes from somewhere else than a file of the host."""
    return "://" in image


def problems(image: str, sha256: str | None, pull: str) -> list[Problem]:
    """What is wrong with the options that say which image, as far as that can be seen without looking at a path."""
    found = []
    if not image or image.endswith("/"):
        remedy = "Name a SIF file of the host, or the address of one."
        found.append(Problem("image", f"{image.rpartition('@')[2]!r} names no file", remedy))
    elif is_address(image):
        found += _address_problems(image, sha256, pull)
    if sha256 and not is_sha256(sha256.lower()):
        found.append(Problem("image_sha256", f"{sha256!r} is not a sha256, which has 64 hexadecimal digits"))
    return found


def _address_problems(image: str, sha256: str | None, pull: str) -> list[Problem]:
    try:
        origin = origin_of(image)
    except ValueError as error:
        return [Problem("image", str(error).replace("src must", "it must", 1).rstrip("."))]
    if origin.kind == "http" and not sha256:
        return [Problem("image_sha256", f"an image from {origin.shown} needs the sha256 that its file must have")]
    if origin.kind == "docker" and sha256:
        text = f"it cannot be given with {origin.shown}, as Apptainer builds another file of the same image each time"
        return [Problem("image_sha256", text, "Name the image by its digest, docker://registry/name@sha256:<digest>.")]
    if origin.kind == "library" and pull == "always" and origin.may_move and not sha256:
        text = f"it cannot be always with {origin.shown}, as a library does not say whether a tag moved"
        return [Problem("pull", text, "Give image_sha256, or leave pull at missing.")]
    return []


def path_of(image: str, home: str) -> str:
    """Where an image that is given by path lies; a relative path begins at the home. An address stays as it is."""
    return image if is_address(image) else os.path.join(home, os.path.expanduser(image))


def place(home: str, origin: Origin, digest: str | None) -> str:
    """Where the image of an address lies; ``digest`` of its file, or of its manifest where Apptainer builds the file.

    Without one it is that of the address: of a library's image nothing else is known before it is there.
    """
    known = (digest or hashlib.sha256(origin.shown.encode()).hexdigest()).rpartition(":")[2]
    stem, extension = _stem(origin)
    return os.path.join(home, layout.SHARED, f"{stem}-{known[:DIGITS]}{extension}")


def _stem(origin: Origin) -> tuple[str, str]:
    if origin.kind == "http":
        return os.path.splitext(os.path.basename(urlsplit(origin.shown).path) or "image.sif")
    path = origin.reference.repository if origin.reference else origin.shown.partition("@")[0]
    return path.rpartition("/")[2].partition(":")[0], ".sif"
