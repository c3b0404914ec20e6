# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files, replaced atomically: written to a temporary file in the same folder, synced, and renamed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from .._result import OperatorError, Problem


class InvalidJson(OperatorError, ValueError):
    """A file that does not hold what this collection writes to it."""


def let_servers_read() -> None:
    """Set the umask to 022 for root, so that the service user can read what root creates; some hosts have 077.

    Any other user runs the server itself, and keeps its umask.
    """
    if os.geteuid() == 0:
        os.umask(0o022)


def sync_folder(folder: str) -> None:
    """Make a rename in ``folder`` survive a power cut; raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: str, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``; a reader sees the complete old or the complete new file. Raises OSError."""
    folder = os.path.dirname(path) or "."
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync_folder(folder)


def write_json(path: str, value: object, mode: int = 0o644) -> None:
    """Like write_atomic, for a JSON value, indented for people."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"
    write_atomic(path, text.encode(), mode)


def read_bytes(path: str) -> bytes | None:
    """The content of ``path``, or None where there is no such file. Raises OSError otherwise."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: str) -> Any | None:
    """The JSON value in ``path``, or None where there is no file. Raises InvalidJson, and OSError."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as broken:
        raise InvalidJson(
            Problem("", f"{path} is not valid JSON ({broken})", "Move it away to start afresh.", path=path)
        ) from broken


def remove(path: str) -> bool:
    """Remove one file; False where there was none. Raises OSError otherwise."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
