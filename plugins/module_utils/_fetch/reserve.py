# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room for a whole set of files: what they still take of the disk, and taking it, before the first byte is fetched.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .._host.files import remove
from .part_file import part_path, prepare
from .source import FetchError


@dataclass(frozen=True)
class Need:
    """A file of ``size`` bytes that is to come to ``destination``; ``content`` is its content_id, if that is known.

    ``shown``: what errors call the destination (default: its path).
    """

    destination: str
    size: int
    content: str | None = None
    shown: str | None = None


def remaining(need: Need) -> int:
    """The bytes of disk that it will still take: an interrupted fetch has reserved some."""
    held = 0
    if need.content is not None:
        try:
            held = os.stat(part_path(need.destination, need.content)).st_blocks * 512
        except OSError:
            held = 0
    return max(need.size - held, 0)


def reserve(needs: Sequence[Need]) -> None:
    """Give every part its place on the disk, so that a quota has its say on all of them before the first byte.

    Where a file system cannot reserve, this does nothing that counts. Raises FetchError; takes back what it made.
    """
    made: list[str] = []
    for need in needs:
        if need.content is None:
            continue
        path = part_path(need.destination, need.content)
        try:
            handle, created = prepare(path, need.size)
        except OSError as failure:
            for one in made:
                remove(one)
            total = sum(one.size for one in needs)
            raise FetchError(
                f"There is no room for the {len(needs)} files of {total} bytes together: {failure.strerror} for the "
                f"{need.size} bytes of {need.shown or need.destination}. Make room, or choose another place"
            ) from None
        os.close(handle)
        if created:
            made.append(path)
