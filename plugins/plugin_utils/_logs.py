# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines of many instances' logs, for a terminal and as files.

Private to gpufleet.llamacpp; may change at any time. The instances are what llamacpp_instance_info returns with
``log_lines``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each line of each log, with host and port in front, as ``gpu-a 4403 | ...``; and what there is no log of.

    ``hosts`` maps a host's name to ``{"instances": [...]}`` as the module gives it, or to ``{"problem": text}``.
    """
    shown: list[str] = []
    for host, found in sorted(hosts.items()):
        instances = found.get("instances") or ()
        if not instances:
            shown.append(f"{host} | {found.get('problem') or 'no instance'}")
        for one in instances:
            front = f"{host} {one.get('port') or one['name']} | "
            log = one.get("log") or [f"({one.get('problem') or one['state']}: there is no log that can be read)"]
            shown += [front + line for line in log]
    return shown


def files(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The logs as files: their content by their name, ``<host>-<instance>.log``."""
    return {
        f"{host}-{one['name']}.log": "".join(f"{line}\n" for line in one["log"])
        for host, found in hosts.items()
        for one in found.get("instances") or ()
        if one.get("log")
    }
