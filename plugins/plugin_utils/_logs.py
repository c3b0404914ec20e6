# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines of the logs of many instances, for a terminal and as files.

Private to gpufleet.llamacpp; may change at any time. The instances are those that llamacpp_instance_info returns with
``log_lines``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each line of each log after its host and port, as ``gpu-a 4403 | ...``; and a line for what has no log.

    ``hosts``: by name, ``{"instances": [...]}`` or ``{"problem": text}``.
    """
    shown: list[str] = []
    for host, found in sorted(hosts.items()):
        instances = found.get("instances") or ()
        if not instances:
            shown.append(f"{host} | {found.get('problem') or 'no instance'}")
        for one in instances:
            prefix = f"{host} {one.get('port') or one['name']} | "
            log = one.get("log") or [f"(no log: {one.get('problem') or one['state']})"]
            shown += [prefix + line for line in log]
    return shown


def files(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The content of each log by the name of its file, ``<host>-<instance>.log``."""
    return {
        f"{host}-{one['name']}.log": "".join(f"{line}\n" for line in one["log"])
        for host, found in hosts.items()
        for one in found.get("instances") or ()
        if one.get("log")
    }
