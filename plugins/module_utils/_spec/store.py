# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records on the host: instance.json of every instance, and the releases before the current one.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._host import layout
from .._host.files import InvalidJson, read_json, remove, write_json
from .._result import OperatorError, Problem
from .record import FORMAT, Record, Release

# Releases before the current one that stay on the host.
KEPT = 5
# instance.json can hold the operator's env, so it is not for everybody.
MODE = 0o640

# What this format always has. Without it nothing can be said about an instance.
SPEC_KEYS = ("name", "image", "model", "port", "host", "alias", "gpus", "context_size", "user")
LAUNCH_KEYS = ("id", "argv", "env", "url", "image_sha256", "model_sha256")


class BrokenRecord(OperatorError):
    """instance.json cannot be understood."""


def path(folder: str) -> str:
    """The path of the record of the instance in this folder."""
    return os.path.join(folder, layout.RECORD)


def read(folder: str) -> Record | None:
    """The instance's record, or None where there is none. Raises BrokenRecord and OSError."""
    file = path(folder)
    try:
        value = read_json(file)
    except InvalidJson as error:
        raise BrokenRecord(*error.problems) from error
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("format"), int):
        raise BrokenRecord(Problem("", f"{file} is not the record of an instance", "Move it away to start afresh."))
    if value["format"] > FORMAT:
        text = (
            f"{file} has format {value['format']}, this version of gpufleet.llamacpp knows up to {FORMAT}: a newer one "
            "wrote it"
        )
        raise BrokenRecord(Problem("", text, "Use that version or a newer one.", path=file))
    wrong = _wrong(value)
    if not wrong:
        try:
            return Record.from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wrong = f"value ({error!r})"
    raise BrokenRecord(Problem("", f"{file} is damaged, without a sound {wrong}", "Move it away to start afresh."))


def _wrong(value: Mapping[str, Any]) -> str:
    """The first part of a record that is not there or has the wrong shape; "" for a sound one."""
    for part, keys in (("spec", SPEC_KEYS), ("launch", LAUNCH_KEYS)):
        lacking = [key for key in keys if not isinstance(value.get(part), dict) or key not in value[part]]
        if lacking:
            return f"{part} ({', '.join(lacking)})"
    if not isinstance(value.get("manager"), str):
        return "manager"
    for part in ("image", "model", "release"):
        if not isinstance(value.get(part), (dict, type(None))):
            return part
    release = value.get("release")
    if release and not (isinstance(release.get("launch"), dict) and "id" in release["launch"]):
        return "release"
    return ""


def write(folder: str, record: Record) -> None:
    """Write the record. Raises OSError."""
    write_json(path(folder), record.to_json(), MODE)


def keep_release(folder: str, release: Release) -> None:
    """Keep a release that is about to be replaced; the oldest beyond KEPT are removed. Raises OSError."""
    shelf = os.path.join(folder, layout.RELEASES)
    os.makedirs(shelf, mode=0o750, exist_ok=True)
    name = f"{release.proven.replace(':', '').replace('-', '')}-{release.setup.launch.id}.json"
    write_json(os.path.join(shelf, name), release.to_json(), MODE)
    for old in sorted(os.listdir(shelf))[:-KEPT]:
        remove(os.path.join(shelf, old))


def names(home: str) -> list[str]:
    """The instances that have a record in this home, sorted."""
    try:
        entries = sorted(os.listdir(home))
    except OSError:
        return []
    # A name that begins with a dot is the rest of a removal that was cut off.
    return [entry for entry in entries if entry[0] != "." and os.path.isfile(path(os.path.join(home, entry)))]


def others(home: str, name: str) -> dict[str, Record]:
    """The records of the other instances in this home, by name; broken ones are left out."""
    found = {}
    for other in names(home):
        try:
            record = None if other == name else read(os.path.join(home, other))
        except (BrokenRecord, OSError):
            continue
        if record is not None:
            found[other] = record
    return found
