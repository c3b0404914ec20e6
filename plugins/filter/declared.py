# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``declared``: the declared instances, merged with the defaults and the overrides of a host."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.vars import merge_hash

from ..module_utils._spec.options import DECLARED

# The sources of a model; a model has one of them. OF_A_SOURCE depends on the source. The hub (endpoint, token_file)
# belongs to the site, so it stays when the source changes.
SOURCES = ("repo", "url", "src")
OF_A_MODEL = (
    *("path", "repo", "file", "revision", "endpoint", "token_file", "offline", "url", "src", "mirrors", "connections"),
    *("max_rate", "ca_path", "sha256", "verify"),
)
OF_A_SOURCE = ("file", "revision", "mirrors")


def declared(
    instances: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    models_dir: str = "/data/models",
    only: str | int | None = None,
) -> list[dict[str, Any]]:
    """The instances of one host. Raises AnsibleFilterError with all problems at once."""
    _refuse(_shape_problems(instances, defaults, overrides))
    merged = []
    for entry in instances:
        name = str(entry.get("name") or "")
        whole: dict[str, Any] = {}
        for layer in (defaults, entry, (overrides or {}).get(name)):
            whole = _merged(whole, _layer(layer or {}))
        model = _model(whole.get("model") or {}, models_dir)
        merged.append({**_binds(model["path"], models_dir), **whole, "name": name, "model": model})
    _refuse(_problems(merged))
    if only in (None, ""):
        return merged
    chosen = [entry for entry in merged if str(only) in (entry["name"], str(entry["port"]))]
    if not chosen:
        names = ", ".join(f"{entry['name']} ({entry['port']})" for entry in merged)
        raise AnsibleFilterError(f"No declared instance has the name or port {only!r}. Declared are: {names}.")
    return chosen


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise AnsibleFilterError("The declared instances cannot be deployed: " + " ".join(problems))


def _layer(values: Mapping[str, Any]) -> dict[str, Any]:
    """One layer, with the model as a mapping, so that the path of one layer and the URL of another merge."""
    model = values.get("model")
    return {**values, "model": {"path": model}} if isinstance(model, str) else dict(values)


def _merged(whole: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one more layer. A new source of the model replaces the old source; a new image removes the old sha256."""
    model = whole.get("model")
    if model and any((layer.get("model") or {}).get(key) for key in SOURCES):
        whole = {**whole, "model": {key: value for key, value in model.items() if key not in (*SOURCES, *OF_A_SOURCE)}}
    if layer.get("image"):
        whole = {key: value for key, value in whole.items() if key != "image_sha256"}
    merged: dict[str, Any] = merge_hash(whole, layer)
    return merged


def _model(model: Mapping[str, Any], models_dir: str) -> dict[str, Any]:
    """The model with an absolute path: a relative one starts at the folder of models."""
    path = str(model.get("path") or "")
    return {**model, "path": path if path.startswith(("/", "~")) or not path else f"{models_dir.rstrip('/')}/{path}"}


def _binds(path: str, models_dir: str) -> dict[str, list[str]]:
    """Bind the folder of models as /models. For a model in another folder, the module itself adds a bind."""
    folder = models_dir.rstrip("/")
    return {"binds": [f"{folder}:/models"]} if folder.startswith("/") and path.startswith(f"{folder}/") else {}


def _shape_problems(instances: Any, defaults: Any, overrides: Any) -> list[str]:
    """What is not a list of mappings, or not a mapping of mappings."""
    if isinstance(instances, (str, Mapping)) or not isinstance(instances, Sequence):
        return [f"llamacpp_instances must be a list, not {instances!r}."]
    problems = [
        f"An entry of llamacpp_instances must be a mapping, not {entry!r}." for entry in instances if not _fits(entry)
    ]
    if not _fits(defaults or {}):
        problems.append(f"llamacpp_instance_defaults must be a mapping, not {defaults!r}.")
    if not isinstance(overrides or {}, Mapping):
        return [*problems, f"llamacpp_instance_overrides must be a mapping, not {overrides!r}."]
    # An override may be for an instance of another playbook.
    for name, values in (overrides or {}).items():
        if not _fits(values or {}):
            problems.append(f"llamacpp_instance_overrides[{name}] must be a mapping, not {values!r}.")
    return problems


def _fits(values: Any) -> bool:
    """Whether this is a mapping in which the model is a path or a mapping."""
    return isinstance(values, Mapping) and isinstance(values.get("model") or "", (str, Mapping))


def _problems(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = []
    for entry in instances:
        lacks = [key for key in ("name", "port") if not entry.get(key)]
        lacks += [] if entry["model"]["path"] else ["model.path"]
        if lacks:
            problems.append(f"{entry['name'] or 'An instance without a name'} lacks {', '.join(lacks)}.")
        problems += _unknown(entry, DECLARED, entry["name"])
        problems += _unknown(entry["model"], OF_A_MODEL, f"the model of {entry['name']}")
    names = [entry["name"] for entry in instances if entry["name"]]
    problems += [
        f"{names.count(name)} instances have the name {name}." for name in sorted(set(names)) if names.count(name) > 1
    ]
    ports = [str(entry["port"]) for entry in instances if entry.get("port")]
    for port in sorted({port for port in ports if ports.count(port) > 1}):
        who = [entry["name"] for entry in instances if str(entry.get("port")) == port]
        problems.append(f"{', '.join(who[:-1])} and {who[-1]} share the port {port}.")
    return problems


def _unknown(values: Mapping[str, Any], known: Sequence[str], what: str) -> list[str]:
    """Unknown keys: without this check, the server would run without a mistyped option."""
    problems = []
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"The options are: {', '.join(sorted(known))}."
            problems.append(f"{what} has no option {key}. {remedy}")
    return problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"declared": declared}
