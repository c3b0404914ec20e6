# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether there is room for a whole set of files, asked before the first byte of any is fetched.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.part import part_path, prepare
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.source import FetchError
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.files import remove

# Of what is needed, this part more must be free: for the file system's own bookkeeping, and for journals.
MARGIN = 0.01
# Each file has a part, a journal, and for a moment a second name.
INODES = 2


@dataclass(frozen=True)
class Need:
    """A file of ``size`` bytes that is to come to ``destination``; ``content`` is its content_id, if that is known."""

    destination: str
    size: int
    content: str | None = None


@dataclass(frozen=True)
class Room:
    """What the files of one folder's file system still need, and what is free on it for this user, in bytes and inodes.

    ``free_inodes`` is None where the file system makes them as it needs them.
    """

    folder: str
    needed: int
    free: int
    needed_inodes: int
    free_inodes: int | None


def _existing(folder: str) -> str:
    """``folder``, or the nearest one above it that exists."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def rooms(needs: Sequence[Need]) -> list[Room]:
    """Per file system, what ``needs`` ask of it. What earlier fetches have on the disk already is not asked again."""
    bytes_: dict[int, int] = {}
    inodes: dict[int, int] = {}
    folders: dict[int, str] = {}
    for need in needs:
        destination = os.path.abspath(need.destination)
        folder = _existing(os.path.dirname(destination))
        device = os.stat(folder).st_dev
        folders.setdefault(device, folder)
        held = 0
        if need.content is not None:
            try:
                held = os.stat(part_path(destination, need.content)).st_blocks * 512
            except OSError:
                held = 0
        bytes_[device] = bytes_.get(device, 0) + max(0, need.size - held)
        inodes[device] = inodes.get(device, 0) + INODES
    found = []
    for device, folder in folders.items():
        system = os.statvfs(folder)
        found.append(
            Room(
                folder=folder,
                needed=int(bytes_[device] * (1 + MARGIN)),
                free=system.f_bavail * system.f_frsize,
                needed_inodes=inodes[device],
                free_inodes=system.f_favail if system.f_files else None,
            )
        )
    return found


def check_space(needs: Sequence[Need]) -> list[Room]:
    """What was found, where ``needs`` find room together; changes nothing. Raises FetchError: all that is missing."""
    problems = []
    found = rooms(needs)
    for room in found:
        if room.needed > room.free:
            problems.append(
                f"{room.folder} has {room.free} bytes free, {room.needed} are needed: {room.needed - room.free} too few"
                + _held(needs, room.folder)
            )
        if room.free_inodes is not None and room.needed_inodes > room.free_inodes:
            problems.append(f"{room.folder} has {room.free_inodes} inodes free, {room.needed_inodes} are needed")
    if problems:
        raise FetchError(f"no room: {'; '.join(problems)}. Make room, or choose another folder")
    return found


def reserve(needs: Sequence[Need]) -> None:
    """check_space, then give every part its place on the disk, so that quotas have their say before the first byte.

    Where a file system cannot reserve, this is no more than check_space. Raises FetchError; takes back what it made.
    """
    check_space(needs)
    made: list[str] = []
    for need in needs:
        if need.content is None:
            continue
        path = part_path(os.path.abspath(need.destination), need.content)
        try:
            handle, created = prepare(path, need.size)
        except OSError as failure:
            for one in made:
                remove(one)
            raise FetchError(f"no room for the {need.size} bytes of {path}: {failure.strerror}. Make room") from None
        os.close(handle)
        if created:
            made.append(path)


def _held(needs: Sequence[Need], folder: str) -> str:
    """Names what interrupted fetches hold in the folders of ``needs``, as that may be what has to go."""
    device = os.stat(folder).st_dev
    keep = {part_path(os.path.abspath(need.destination), need.content) for need in needs if need.content is not None}
    places = {os.path.dirname(os.path.abspath(need.destination)) for need in needs}
    parts = {path for place in places for path in glob.glob(os.path.join(glob.escape(place), ".*.part"))} - keep
    held = [(path, os.stat(path).st_blocks * 512) for path in sorted(parts) if os.stat(path).st_dev == device]
    return "".join(f"; an interrupted fetch holds {count} bytes in {path}" for path, count in held)
