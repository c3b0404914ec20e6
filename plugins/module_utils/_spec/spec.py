# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator asked an instance to be: pure data in canonical form, checked as far as no host is needed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._artifact.image import naming
from .._host import layout
from .._llama.argv import spelled
from .._llama.options import OPENS, OWNED, UNUSABLE
from .._result import Refusal

# States that need a whole spec; for the others the record on the host tells enough.
WHOLE_STATES = ("started", "restarted", "present")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GPU = re.compile(r"\d+|GPU-[0-9a-fA-F-]+")
LAYERS = re.compile(r"\d{1,4}|auto|all")
# A name or an address, an IPv6 address also in brackets; no list of them, and nothing that looks like an option.
HOST = re.compile(r"[A-Za-z0-9:\[][A-Za-z0-9.:_\[\]-]*")
LONG_OPTION = re.compile(r"--[a-z][a-z0-9-]*")

# Seconds, for what was recorded before it could be chosen.
DRAIN_TIMEOUT = 60

# Options that can be wrong without hiding what else is: neither a place nor the shape of the command depends on them.
ASIDE = (
    *("args", "env", "allow_options", "alias", "context_size", "threads", "min_build", "max_slowdown"),
    *("gate_prompts", "gate_prompt_tokens", "wait_timeout", "drain_timeout", "lock_timeout"),
)


@dataclass(frozen=True)
class Spec:
    """One declared instance. Paths are absolute; args is an argument list, one element an argument.

    ``image`` is an address until image.py tells where that image lies.
    """

    name: str
    image: str
    model: str
    port: int
    host: str
    alias: str | None
    gpus: tuple[str, ...]
    gpu_layers: str | None
    context_size: int | None
    threads: int | None
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    binds: tuple[str, ...]
    api_key_file: str | None
    server_path: str | None
    manager: str
    user: str
    drain_timeout: int

    def as_dict(self) -> dict[str, Any]:
        """The form that is recorded on the host: JSON types only."""
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**lists, "env": dict(self.env)}


def split_args(entries: Sequence[str]) -> list[str]:
    """Argument list of ``["--jinja", "--temp 1.0"]``: an entry that starts with a dash is an option and, behind its
    first blank, one value taken as it stands; any other entry is one argument. No shell, no quoting.
    """
    argv: list[str] = []
    for entry in entries:
        argv.extend(entry.split(None, 1) if entry.startswith("-") else [entry])
    return argv


def check_name(name: str) -> list[str]:
    """Problems of an instance's name, which is also the name of its folder and of its unit."""
    if not NAME.fullmatch(name) or ".." in name:
        return [
            f"name: {name!r} cannot be a folder's name. Use letters, digits, dot, dash and underscore, at most 64, "
            "beginning with a letter or digit, without '..'."
        ]
    if name in layout.RESERVED:
        return [f"name: {name!r} is what the home has for all instances. Choose another name."]
    return []


def _check_number(option: str, value: int | None, low: int, high: int, why: str) -> list[str]:
    if value is None or low <= value <= high:
        return []
    return [f"{option}: {value} is out of range. Choose {low} to {high} ({why})."]


def _check_path(option: str, value: str | None) -> list[str]:
    if value is None:
        return []
    if not value.startswith("/") or ".." in value.split("/") or any(ord(letter) < 32 for letter in value):
        return [f"{option}: {value!r} has to be an absolute path without '..' and without control characters."]
    return []


def _check_bound(option: str, path: str | None, bound: str) -> list[str]:
    """A path that the container gets by --bind, where a comma and a colon have a meaning of their own."""
    if path is None or not re.search("[:,]", bound):
        return []
    return [f"{option}: {path!r} cannot be seen by the container: --bind takes no ':' and ','. Rename the folder."]


def _check_bind(bind: str) -> list[str]:
    parts = bind.split(":")
    sound = all(part.startswith("/") for part in parts[:2]) and "," not in bind
    if sound and (len(parts) <= 2 or parts[2:] in (["ro"], ["rw"])):
        return [problem for part in parts[:2] for problem in _check_path("binds", part)]
    return [f"binds: {bind!r} has to be /on/host:/in/container or /on/host:/in/container:ro, without a comma."]


def check_image(image: str, sha256: str | None, pull: str) -> list[str]:
    """Problems of the options that say which image."""
    problems = naming.problems(image, sha256, pull)
    return problems if naming.is_address(image) else [*problems, *_check_path("image", naming.path_of(image, "/"))]


def _check_gpus(gpus: Sequence[str]) -> list[str]:
    problems = [
        f"gpus: {gpu!r} is neither an index such as 0 nor a UUID such as GPU-8a3c...; nvidia-smi -L lists both."
        for gpu in gpus
        if not GPU.fullmatch(gpu)
    ]
    if len(set(gpus)) < len(gpus):
        problems.append(f"gpus: {','.join(gpus)} names a GPU twice. Name each once.")
    return problems


def _check_env(env: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    problems = []
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            problems.append(f"env: {name!r} cannot be a variable's name. Use letters, digits and underscores.")
        else:
            problems += _check_option("env", name, name, allowed)
        if "\0" in str(value):
            problems.append(f"env: the value of {name} holds a NUL byte. Take it out.")
    return problems


def _check_args(argv: Sequence[str], allowed: Sequence[str]) -> list[str]:
    problems = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        # What stands behind the sign may be a secret, so of these options only the name is shown.
        option = spelled(name)
        found = _check_option("args", name, option, allowed)
        problems += found
        if not found and equals and LONG_OPTION.fullmatch(option):
            problems.append(f"args: llama-server knows no {argument!r}; write {name + ' ' + value!r}.")
        if "\0" in argument:
            problems.append(f"args: {argument!r} holds a NUL byte. Take it out.")
    return problems


def _check_option(where: str, shown: str, name: str, allowed: Sequence[str]) -> list[str]:
    """An option of llama-server, or the variable that stands for it, by what is known of it without an image."""
    if name in OWNED:
        return [f"{where}: {shown} is what the option {OWNED[name]} is for; say it there."]
    if name in UNUSABLE:
        return [f"{where}: {shown} cannot be used: {UNUSABLE[name]}."]
    if name in OPENS and OPENS[name].name not in allowed:
        opening = OPENS[name]
        return [
            f"{where}: {shown} {opening.does}. If that is wanted, write {opening.name} into allow_options; else take "
            "it out."
        ]
    return []


def _check_allowed(allowed: Sequence[str]) -> list[str]:
    names = dict.fromkeys(opening.name for opening in OPENS.values())
    return [
        f"allow_options: {name!r} is none of the options that have to be allowed. These are {', '.join(names)}."
        for name in allowed
        if name not in OPENS
    ]


def check(params: Mapping[str, Any]) -> list[str]:
    """Every problem of the options that can be seen without looking at the host."""
    model, key_file = params["model"], params["api_key_file"]
    problems = check_name(params["name"])
    problems += check_image(params["image"], params["image_sha256"], params["pull"])
    for option in ("model", "api_key_file", "server_path"):
        problems += _check_path(option, params[option])
    problems += _check_bound("model", model, os.path.dirname(model))
    problems += _check_bound("api_key_file", key_file, key_file or "")
    if not HOST.fullmatch(params["host"]) or params["host"].endswith(".sock"):
        problems.append(f"host: {params['host']!r} has to be one address, such as 127.0.0.1 or 0.0.0.0.")
    problems += _check_number("port", params["port"], 1, 65535, "TCP ports")
    problems += _check_gpus([str(gpu) for gpu in params["gpus"] or []])
    layers = params["gpu_layers"]
    if layers is not None and not LAYERS.fullmatch(layers):
        problems.append(f"gpu_layers: {layers!r} has to be a number of layers, auto or all.")
    problems += _check_number("context_size", params["context_size"], 0, 2**31 - 1, "tokens; 0 is the model's own")
    problems += _check_number("threads", params["threads"], 1, 4096, "CPU threads")
    problems += _check_number("min_build", params["min_build"], 1, 2**31 - 1, "a build's number, such as 11434")
    problems += _check_number("wait_timeout", params["wait_timeout"], 1, 86400, "seconds")
    problems += _check_number("drain_timeout", params["drain_timeout"], 0, 3600, "seconds")
    problems += _check_number("lock_timeout", params["lock_timeout"], 0, 86400, "seconds")
    if params["alias"] is not None and (not params["alias"] or not params["alias"].isprintable()):
        problems.append(f"alias: {params['alias']!r} has to be a name on one line.")
    allowed = [spelled(name) for name in params["allow_options"]]
    problems += _check_allowed(allowed)
    allowed = [OPENS[name].name for name in allowed if name in OPENS]
    problems += _check_args(split_args(params["args"]), allowed)
    problems += _check_env(params["env"], allowed)
    for bind in params["binds"]:
        problems += _check_bind(bind)
    return problems


def _check_places(spec: Spec, home: str) -> list[str]:
    """What lies in the instance's own folder is gone with it, and image and model are to stay."""
    folder = os.path.join(home, spec.name, "")
    return [
        f"{option}: {path} lies in the instance's own folder {folder}, which is removed with it. Put it elsewhere."
        for option, path in (("image", spec.image), ("model", spec.model))
        if os.path.normpath(path).startswith(folder)
    ]


def canonical(params: Mapping[str, Any], home: str) -> Spec:
    """The options in canonical form, whatever is wrong with them."""
    return Spec(
        name=params["name"],
        image=naming.path_of(params["image"], home),
        model=params["model"],
        port=params["port"],
        host=params["host"],
        alias=params["alias"],
        gpus=tuple(str(gpu) for gpu in params["gpus"] or []),
        gpu_layers=params["gpu_layers"],
        context_size=params["context_size"],
        threads=params["threads"],
        args=tuple(split_args(params["args"])),
        env=tuple((name, str(value)) for name, value in sorted(params["env"].items())),
        binds=tuple(params["binds"]),
        api_key_file=params["api_key_file"],
        server_path=params["server_path"],
        manager=params["manager"],
        user=params["user"],
        drain_timeout=params["drain_timeout"],
    )


def parse(params: Mapping[str, Any], home: str) -> Spec:
    """The canonical spec of the module's options; raises Refusal with every problem at once."""
    problems = check(params)
    spec = canonical(params, home)
    if not check_name(spec.name):
        problems += _check_places(spec, home)
    if problems:
        raise Refusal(problems)
    return spec


def of_record(value: Mapping[str, Any]) -> Spec:
    """The spec of a record; what its version did not know yet is as the options' defaults are."""
    known: dict[str, Any] = {"drain_timeout": DRAIN_TIMEOUT, **value}
    spec: dict[str, Any] = {key: known.get(key) for key in Spec.__dataclass_fields__}
    lists = {key: tuple(known[key]) for key in ("gpus", "args", "binds")}
    return Spec(**{**spec, **lists, "env": tuple(sorted(known["env"].items()))})


def can_be_looked_at(problems: Sequence[str]) -> bool:
    """Whether a spec with these problems still tells where on the host to look for more of them."""
    return all(problem.split(":")[0] in ASIDE and "NUL byte" not in problem for problem in problems)
