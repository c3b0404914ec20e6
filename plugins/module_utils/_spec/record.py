# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host remembers of an instance: instance.json with spec, launch and current release, and the releases before.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._host import layout
from .._host.files import read_json, remove, write_json

FORMAT = 1
# Releases before the current one that stay on the host.
KEPT = 5
# instance.json can hold the operator's env, so it is not for everybody.
MODE = 0o640

# What this format always has, and without which nothing can be said about an instance.
SPEC_KEYS = ("name", "image", "model", "port", "host", "alias", "gpus", "context_size", "user")
LAUNCH_KEYS = ("id", "argv", "env", "url", "image_sha256", "model_sha256")


def path(folder: str) -> str:
    """Where the record of the instance in this folder lies."""
    return os.path.join(folder, layout.RECORD)


def read(folder: str) -> dict[str, Any] | None:
    """The instance's record, or None where there is none; raises ValueError in words if it cannot be understood."""
    value = read_json(path(folder))
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("format"), int):
        raise ValueError(f"{path(folder)} is not the record of an instance. Move it away to start afresh.")
    if value["format"] > FORMAT:
        raise ValueError(
            f"{path(folder)} has format {value['format']}, this version of gpufleet.llamacpp knows up to {FORMAT}: a "
            "newer one wrote it. Use that version or a newer one."
        )
    wrong = _wrong(value)
    if wrong:
        raise ValueError(f"{path(folder)} is damaged, without a sound {wrong}. Move it away to start afresh.")
    return value


def _wrong(value: Mapping[str, Any]) -> str:
    """The first part of a record that is not there or has the wrong shape; '' for a sound one."""
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


def make(
    spec: Mapping[str, Any],
    manager: str,
    launch: Mapping[str, Any],
    image: Mapping[str, Any] | None,
    model: Mapping[str, Any] | None,
    release: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A record: what was asked for, what it means on this host, the files that it uses, and what was last proven."""
    return {
        "format": FORMAT,
        "spec": dict(spec),
        "manager": manager,
        "launch": dict(launch),
        "image": dict(image) if image else None,
        "model": dict(model) if model else None,
        "release": dict(release) if release else None,
    }


def same_wish(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records ask for the same; the release and the files' stat values may differ."""
    return all(one.get(key) == other.get(key) for key in ("format", "spec", "manager", "launch", "gate"))


def write(folder: str, value: Mapping[str, Any]) -> None:
    """Write the record. Raises OSError."""
    write_json(path(folder), value, MODE)


def keep_release(folder: str, release: Mapping[str, Any]) -> None:
    """Put a release that is about to be replaced beside the current one, the oldest beyond KEPT go. Raises OSError."""
    shelf = os.path.join(folder, layout.RELEASES)
    os.makedirs(shelf, mode=0o750, exist_ok=True)
    name = f"{release['proven'].replace(':', '').replace('-', '')}-{release['launch']['id']}.json"
    write_json(os.path.join(shelf, name), release, MODE)
    for old in sorted(os.listdir(shelf))[:-KEPT]:
        remove(os.path.join(shelf, old))


def names(home: str) -> list[str]:
    """The instances that have a record in this home, sorted."""
    try:
        entries = sorted(os.listdir(home))
    except OSError:
        return []
    # What begins with a dot is the rest of a removal that was cut off.
    return [entry for entry in entries if entry[0] != "." and os.path.isfile(path(os.path.join(home, entry)))]


def others(home: str, name: str) -> dict[str, dict[str, Any]]:
    """The records of the other instances in this home, by name; broken ones are left out."""
    found = {}
    for other in names(home):
        try:
            value = None if other == name else read(os.path.join(home, other))
        except (ValueError, OSError):
            continue
        if value is not None:
            found[other] = value
    return found
