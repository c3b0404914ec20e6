# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``declared``: declared instances with what holds for all of them and for this host merged in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.vars import merge_hash


def declared(
    instances: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    models_dir: str = "/data/models",
    only: str | int | None = None,
) -> list[dict[str, Any]]:
    """The instances of one host. Raises AnsibleFilterError that names every problem of all of them at once."""
    merged = []
    for entry in instances:
        name = str(entry.get("name", ""))
        whole = merge_hash(merge_hash(dict(defaults or {}), dict(entry)), dict((overrides or {}).get(name, {})))
        merged.append({**whole, "name": name, "model": _model(whole.get("model"), models_dir)})
    problems = _problems(merged) + _unknown_overrides(merged, overrides or {})
    if problems:
        raise AnsibleFilterError("The declared instances cannot be deployed: " + " ".join(problems))
    if only in (None, ""):
        return merged
    chosen = [entry for entry in merged if str(only) in (entry["name"], str(entry["port"]))]
    if not chosen:
        there = ", ".join(f"{entry['name']} ({entry['port']})" for entry in merged)
        raise AnsibleFilterError(f"No declared instance has the name or port {only!r}. There are: {there}.")
    return chosen


def _model(model: Any, models_dir: str) -> dict[str, Any]:
    """A model is a path, or a path and where it comes from; a relative path begins at the folder of models."""
    whole = dict(model) if isinstance(model, Mapping) else {"path": model or ""}
    path = str(whole.get("path") or "")
    return {**whole, "path": path if path.startswith(("/", "~")) or not path else f"{models_dir.rstrip('/')}/{path}"}


def _problems(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = []
    for entry in instances:
        lacks = [key for key in ("name", "port") if not entry.get(key)]
        lacks += [] if entry["model"]["path"] else ["model.path"]
        if lacks:
            problems.append(f"{entry.get('name') or 'An instance without a name'} lacks {', '.join(lacks)}.")
    for key in ("name", "port"):
        values = [str(entry.get(key)) for entry in instances if entry.get(key)]
        twice = sorted({value for value in values if values.count(value) > 1})
        for value in twice:
            who = [entry["name"] for entry in instances if str(entry.get(key)) == value]
            said = (
                f"{len(who)} instances have the name {value}."
                if key == "name"
                else f"{' and '.join(who)} share the port {value}."
            )
            problems.append(said)
    return problems


def _unknown_overrides(instances: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]) -> list[str]:
    """An override for an instance that is deployed by another playbook is fine; one that is no mapping is not."""
    return [
        f"llamacpp_instance_overrides[{name}] has to be a mapping."
        for name in overrides
        if not isinstance(overrides[name], Mapping)
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"declared": declared}
