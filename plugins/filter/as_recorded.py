# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``as_recorded``: instances as the hosts have recorded them, with a few options changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def as_recorded(instances: Sequence[Mapping[str, Any]], **options: Any) -> list[dict[str, Any]]:
    """The name of each instance, with the options that are not empty. The host takes the rest from its record."""
    given = {key: value for key, value in options.items() if value not in (None, "")}
    return [{"name": one["name"], **given} for one in instances]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"as_recorded": as_recorded}
