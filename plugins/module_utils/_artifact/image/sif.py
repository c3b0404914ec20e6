# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a SIF file on the host is by its first bytes, and what tells that it is still the same.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os

from ..._host import layout

# The record folder, beside the images.
RECORDS = layout.IMAGE_RECORDS

# SIF's global header: 32 bytes of launch script, then the magic (apptainer/sif, pkg/sif/sif.go).
MAGIC_OFFSET = 32
MAGIC = b"SIF_MAGIC\0"


def problems(path: str) -> list[str]:
    """What keeps the file from being an image, in words; empty for one that looks like a SIF. Reads its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(MAGIC_OFFSET + len(MAGIC))
    except IsADirectoryError:
        return [f"image: {path} is a folder; it has to be a SIF file."]
    except OSError as error:
        return [f"image: {path} cannot be read ({error.strerror}). Name a SIF file that user {os.geteuid()} may read."]
    if head[MAGIC_OFFSET:] == MAGIC:
        return []
    kind = "an HTML page" if head.lstrip()[:1] == b"<" else "empty" if not head else "something else"
    return [f"image: {path} is not a SIF image, it is {kind}. Pull it again, or name the right file."]


def stamp(path: str) -> list[int] | None:
    """What identifies this state of the file without reading it: size, mtime, ctime (ns), inode; None: no such file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
