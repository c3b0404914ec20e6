# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances in a host's result of llamacpp_instance_info, or why there are none.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def instances_of(result: Any) -> dict[str, Any]:
    """``{"instances": [...]}`` out of a registered result, or ``{"problem": text}``."""
    if not isinstance(result, Mapping):
        return {"problem": "no result"}
    message = str(result.get("msg") or "").strip() or "no result"
    if result.get("unreachable"):
        return {"problem": f"unreachable: {message.splitlines()[0]}"}
    if result.get("failed") or "instances" not in result:
        return {"problem": message}
    return {"instances": list(result["instances"])}
