# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``declared``: declared instances with what holds for all of them and for this host merged in."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.vars import merge_hash

from ..module_utils._spec.options import DECLARED

# Of a model: where it comes from, which is one of these, and what is said of that place alone. The hub (endpoint,
# token_file) is a site's, whatever the place.
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
    """The instances of one host. Raises AnsibleFilterError that names every problem of all of them at once."""
    problems = _shape_problems(instances, defaults, overrides)
    if problems:
        raise AnsibleFilterError("The declared instances cannot be deployed: " + " ".join(problems))
    merged = []
    for entry in instances:
        name = str(entry.get("name") or "")
        whole: dict[str, Any] = {}
        for layer in (defaults, entry, (overrides or {}).get(name)):
            whole = _merged(whole, _layer(layer or {}))
        model = _model(whole.get("model") or {}, models_dir)
        merged.append({**_binds(model["path"], models_dir), **whole, "name": name, "model": model})
    problems = _problems(merged)
    if problems:
        raise AnsibleFilterError("The declared instances cannot be deployed: " + " ".join(problems))
    if only in (None, ""):
        return merged
    chosen = [entry for entry in merged if str(only) in (entry["name"], str(entry["port"]))]
    if not chosen:
        there = ", ".join(f"{entry['name']} ({entry['port']})" for entry in merged)
        raise AnsibleFilterError(f"No declared instance has the name or port {only!r}. There are: {there}.")
    return chosen


def _layer(values: Mapping[str, Any]) -> dict[str, Any]:
    """One layer of what is declared, with the model as a mapping, so that a path here and an address there meet."""
    model = values.get("model")
    return {**values, "model": {"path": model}} if isinstance(model, str) else dict(values)


def _merged(whole: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """What holds with one more layer; where that says another place to have the model from, the former one is gone.

    So is the sha256 of an image where there is another one.
    """
    model = whole.get("model")
    if model and any((layer.get("model") or {}).get(key) for key in SOURCES):
        whole = {**whole, "model": {key: value for key, value in model.items() if key not in (*SOURCES, *OF_A_SOURCE)}}
    if layer.get("image"):
        whole = {key: value for key, value in whole.items() if key != "image_sha256"}
    merged: dict[str, Any] = merge_hash(whole, layer)
    return merged


def _model(model: Mapping[str, Any], models_dir: str) -> dict[str, Any]:
    """A relative path of a model begins at the folder of models."""
    path = str(model.get("path") or "")
    return {**model, "path": path if path.startswith(("/", "~")) or not path else f"{models_dir.rstrip('/')}/{path}"}


def _binds(path: str, models_dir: str) -> dict[str, list[str]]:
    """The folder of models as /models, as the operators' notes have it. For a model elsewhere the module has a bind."""
    folder = models_dir.rstrip("/")
    return {"binds": [f"{folder}:/models"]} if folder.startswith("/") and path.startswith(f"{folder}/") else {}


def _shape_problems(instances: Any, defaults: Any, overrides: Any) -> list[str]:
    """What is not even a list of mappings, or a mapping of mappings."""
    if isinstance(instances, (str, Mapping)) or not isinstance(instances, Sequence):
        return [f"llamacpp_instances has to be a list, and is {instances!r}."]
    problems = [f"{entry!r} in llamacpp_instances has to be a mapping." for entry in instances if not _fits(entry)]
    if not _fits(defaults or {}):
        problems.append(f"llamacpp_instance_defaults has to be a mapping, and is {defaults!r}.")
    if not isinstance(overrides or {}, Mapping):
        return [*problems, f"llamacpp_instance_overrides has to be a mapping, and is {overrides!r}."]
    # An override for an instance that another playbook deploys is fine.
    for name, values in (overrides or {}).items():
        if not _fits(values or {}):
            problems.append(f"llamacpp_instance_overrides[{name}] has to be a mapping, and is {values!r}.")
    return problems


def _fits(values: Any) -> bool:
    """Whether these are options of an instance: a mapping, in which the model is a path or a mapping."""
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
    """Keys that mean nothing: one letter more, and the server would run without what was meant."""
    problems = []
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(known))}."
            problems.append(f"{what} has no option {key}. {meant}")
    return problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"declared": declared}
