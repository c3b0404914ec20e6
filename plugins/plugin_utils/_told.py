# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llamacpp_instance_info told of a host, or in words why it did not.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def told(said: Any) -> dict[str, Any]:
    """``{"instances": [...]}`` out of a host's registered result, or ``{"problem": text}``."""
    if not isinstance(said, Mapping):
        return {"problem": "was not asked"}
    if said.get("unreachable"):
        return {"problem": "cannot be reached: " + _first_line(said.get("msg"))}
    if said.get("failed") or "instances" not in said:
        return {"problem": str(said.get("msg") or "was not asked")}
    return {"instances": list(said["instances"])}


def _first_line(text: Any) -> str:
    return (str(text or "").strip().splitlines() or [""])[0]
