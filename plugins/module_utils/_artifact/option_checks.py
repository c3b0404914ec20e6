# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the options that gguf_model and sif_image share. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.text.formatters import human_to_bytes

from .._result import Problem
from .file_record import is_sha256

CONNECTIONS_MAX = 64


def check(params: Mapping[str, Any]) -> list[Problem]:
    """Every problem of path, connections and max_rate."""
    path, connections, max_rate, found = params["path"], params["connections"], params["max_rate"], []
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
        found.append(Problem("path", f"{path!r} is not the absolute path of a file", "Write it without '..'."))
    if not 1 <= connections <= CONNECTIONS_MAX:
        text = f"{connections} is out of range"
        found.append(Problem("connections", text, f"Choose 1 to {CONNECTIONS_MAX} connections."))
    try:
        rate_of(max_rate)
    except ValueError:
        remedy = "Write a number of bytes in a second, such as 50M."
        found.append(Problem("max_rate", f"{max_rate!r} is not a number of bytes", remedy))
    return found


def rate_of(value: str | int | None) -> float | None:
    """max_rate in bytes per second. Ansible gives a number to one module, and the text of the option to the other."""
    return float(human_to_bytes(value)) if value else None


def check_sha256(digest: str) -> list[Problem]:
    """What is wrong with one digest of the option sha256."""
    if is_sha256(digest.lower()):
        return []
    text = f"{digest!r} has {len(digest)} characters"
    return [Problem("sha256", text, "A sha256 has 64 hexadecimal digits (0-9, a-f).")]
