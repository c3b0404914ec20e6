# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reserve disk space for a whole set of files before the first byte is fetched.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .._host.files import remove
from .._result import Problem
from .part_file import part_path, prepare
from .source import FetchError


@dataclass(frozen=True)
class Need:
    """A file of ``size`` bytes that is to be fetched to ``destination``.

    ``content``: its content_id, if known. ``shown_path``: the path that errors name, if not the destination.
    """

    destination: str
    size: int
    content: str | None = None
    shown_path: str | None = None


def remaining(need: Need) -> int:
    """The bytes of disk that it still needs. An interrupted fetch has reserved some."""
    reserved = 0
    if need.content is not None:
        try:
            reserved = os.stat(part_path(need.destination, need.content)).st_blocks * 512
        except OSError:
            reserved = 0
    return max(need.size - reserved, 0)


def reserve(needs: Sequence[Need]) -> None:
    """Create the part of every file at its full size, so that a full disk or a quota shows before the first byte.

    On a file system that cannot reserve space this has no effect. Raises FetchError, and removes what it created.
    """
    created: list[str] = []
    for need in needs:
        if need.content is None:
            continue
        path = part_path(need.destination, need.content)
        try:
            handle, new = prepare(path, need.size)
        except OSError as failure:
            for one in created:
                remove(one)
            shown = need.shown_path or need.destination
            total = sum(one.size for one in needs)
            text = (
                f"there is no room for the {len(needs)} files of {total} bytes together: {failure.strerror} for the "
                f"{need.size} bytes of {shown}"
            )
            raise FetchError(Problem("", text, "Make room, or choose another folder.", shown)) from None
        os.close(handle)
        if new:
            created.append(path)
