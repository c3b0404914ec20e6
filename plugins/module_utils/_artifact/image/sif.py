# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a file is a SIF image, by its first bytes.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os

from ..._result import Problem

# SIF's global header: 32 bytes of launch script, then the magic (apptainer/sif, pkg/sif/sif.go).
MAGIC_OFFSET = 32
MAGIC = b"SIF_MAGIC\0"


def problem(path: str, shown: str | None = None) -> Problem | None:
    """Why the file is no SIF image; None for one that looks like a SIF. ``shown``: what the problem calls the file."""
    shown = shown or path
    try:
        with open(path, "rb") as file:
            head = file.read(MAGIC_OFFSET + len(MAGIC))
    except IsADirectoryError:
        return Problem("", f"{shown} is a folder", "Name a SIF file.", path)
    except OSError as error:
        remedy = f"Let the user {os.geteuid()}, which runs this task, read it."
        return Problem("", f"{shown} cannot be read ({error.strerror})", remedy, path)
    if head[MAGIC_OFFSET:] == MAGIC:
        return None
    found = "an HTML page" if head.lstrip()[:1] == b"<" else "empty" if not head else "something else"
    return Problem("", f"{shown} is not a SIF image but {found}", "Pull it again, or name another file.", path)
