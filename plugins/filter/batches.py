# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``batches``: the ``serial`` of a play for a rollout that starts with a few hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DEFAULTS = {"canary": 1, "batch": "25%", "pause": 0}
PERCENT = re.compile(r"([1-9][0-9]?|100)%")


def batches(rollout: Mapping[str, Any] | None, hosts: int | None = None) -> list[Any]:
    """The sizes of the batches; the last one repeats. With ``hosts``, shares become numbers, rounded as in Ansible.

    Raises AnsibleFilterError with all problems at once.
    """
    if not isinstance(rollout or {}, Mapping):
        raise AnsibleFilterError(f"llamacpp_rollout must be a mapping of canary, batch and pause, not {rollout!r}.")
    wanted = {**DEFAULTS, **(rollout or {})}
    problems = [f"unknown key {key}; the keys are {', '.join(DEFAULTS)}." for key in wanted if key not in DEFAULTS]
    if not _is_number(wanted["canary"]):
        problems.append(f"canary must be a number of hosts, 0 or more, not {wanted['canary']!r}.")
    if not (_is_number(wanted["batch"]) and int(wanted["batch"]) > 0) and not PERCENT.fullmatch(str(wanted["batch"])):
        problems.append(f"batch must be a number of hosts, or a share such as 25%, not {wanted['batch']!r}.")
    if not _is_number(wanted["pause"]):
        problems.append(f"pause must be a number of seconds, not {wanted['pause']!r}.")
    if problems:
        raise AnsibleFilterError("llamacpp_rollout: " + " ".join(problems))
    sizes = [wanted["batch"] if "%" in str(wanted["batch"]) else int(wanted["batch"])]
    if int(wanted["canary"]):
        sizes.insert(0, int(wanted["canary"]))
    return sizes if hosts is None else [_count(size, hosts) for size in sizes]


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch("[0-9]{1,6}", str(value)) is not None


def _count(size: Any, hosts: int) -> int:
    """The number of hosts. A share is rounded down, and is at least one."""
    found = PERCENT.fullmatch(str(size))
    return max(1, hosts * int(found[1]) // 100) if found else int(size)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"batches": batches}
