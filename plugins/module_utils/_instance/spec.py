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

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal

# States that need a whole spec; for the others the record on the host tells enough.
WHOLE_STATES = ("started", "restarted", "present")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Spellings of llama-server's own option names (llama.cpp common/arg.cpp) that an option of the module stands for.
OWNED = {
    "-m": "model",
    "--model": "model",
    "-a": "alias",
    "--alias": "alias",
    "--host": "host",
    "--port": "port",
    "-ngl": "gpu_layers",
    "--gpu-layers": "gpu_layers",
    "--n-gpu-layers": "gpu_layers",
    "-c": "context_size",
    "--ctx-size": "context_size",
    "-t": "threads",
    "--threads": "threads",
    "--api-key-file": "api_key_file",
}

# Options that would keep llama-server from being what an instance is, each with what to do instead.
UNUSABLE = {
    "--api-key": "it shows the key to every user in the process list; put it into a file and use api_key_file",
    "--api-prefix": "the probes expect /health and /v1 at the root; put the prefix into the proxy in front",
    "--ssl-key-file": "the probes speak plain HTTP; end TLS in a proxy in front",
    "--ssl-cert-file": "the probes speak plain HTTP; end TLS in a proxy in front",
    "--models-dir": "an instance serves one model; declare one instance for each",
    "--models-preset": "an instance serves one model; declare one instance for each",
    "-h": "it prints and exits",
    "--help": "it prints and exits",
    "--usage": "it prints and exits",
    "--version": "it prints and exits",
    "--list-devices": "it prints and exits",
    "--cache-list": "it prints and exits",
    "--completion-bash": "it prints and exits",
}


@dataclass(frozen=True)
class Spec:
    """One declared instance. Paths are absolute; args is an argument list, one element an argument."""

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


def option_name(argument: str) -> str:
    """The option in llama-server's eyes: in a long option an underscore is a dash (common/arg.cpp)."""
    return argument.replace("_", "-") if argument.startswith("--") else argument


def check_name(name: str) -> list[str]:
    """Problems of an instance's name, which is also the name of its folder and of its unit."""
    if NAME.fullmatch(name) and ".." not in name:
        return []
    return [
        f"name: {name!r} cannot be a folder's name. Use letters, digits, dot, dash and underscore, at most 64, "
        "beginning with a letter or digit, without '..'."
    ]


def _check_number(option: str, value: int | None, low: int, high: int, why: str) -> list[str]:
    if value is None or low <= value <= high:
        return []
    return [f"{option}: {value} is out of range; {low} to {high} is possible ({why})."]


def _check_path(option: str, value: str | None) -> list[str]:
    if value is None or (value.startswith("/") and ".." not in value.split("/") and "\n" not in value):
        return []
    return [f"{option}: {value!r} has to be an absolute path without '..'."]


def _check_bind(bind: str) -> list[str]:
    parts = bind.split(":")
    sound = all(part.startswith("/") for part in parts[:2]) and "," not in bind
    if sound and (len(parts) <= 2 or parts[2:] in (["ro"], ["rw"])):
        return [problem for part in parts[:2] for problem in _check_path("binds", part)]
    return [f"binds: {bind!r} has to be /on/host:/in/container or /on/host:/in/container:ro, without a comma."]


def _check_args(argv: Sequence[str]) -> list[str]:
    problems = []
    for argument in argv:
        option = option_name(argument)
        if option in OWNED:
            problems.append(f"args: {argument} is what the option {OWNED[option]} is for; say it there.")
        elif option in UNUSABLE:
            problems.append(f"args: {argument} cannot be used: {UNUSABLE[option]}.")
        elif option.startswith("--") and "=" in option.split(" ")[0]:
            name, dummy, value = argument.partition("=")
            problems.append(f"args: llama-server knows no {argument!r}; write {name + ' ' + value!r}.")
        if "\0" in argument:
            problems.append(f"args: {argument!r} holds a NUL byte, which no argument can.")
    return problems


def check(params: Mapping[str, Any]) -> list[str]:
    """Every problem of the options that can be seen without looking at the host."""
    problems = check_name(params["name"])
    problems += _check_number("port", params["port"], 1, 65535, "TCP ports")
    problems += _check_number("context_size", params["context_size"], 0, 2**31 - 1, "tokens; 0 is the model's own")
    problems += _check_number("threads", params["threads"], 1, 4096, "CPU threads")
    layers = params["gpu_layers"]
    if layers is not None and layers not in ("auto", "all") and not re.fullmatch(r"\d{1,4}", layers):
        problems.append(f"gpu_layers: {layers!r} has to be a number of layers, auto or all.")
    for option in ("model", "api_key_file", "server_path"):
        problems += _check_path(option, params[option])
    if "://" not in params["image"]:
        problems += _check_path("image", image_path(params["image"], "/"))
    elif not params["image"].startswith(("http://", "https://")):
        problems.append(f"image: {params['image']!r} has to be a path on the host or an http(s) address.")
    elif not params["image_sha256"]:
        problems.append("image_sha256: an image from an address needs the sha256 that its file must have.")
    if params["image_sha256"] and not SHA256.fullmatch(params["image_sha256"].lower()):
        problems.append(f"image_sha256: {params['image_sha256']!r} is not a sha256, which is 64 hexadecimal digits.")
    if params["host"].endswith(".sock") or "," in params["host"] or not params["host"]:
        problems.append(f"host: {params['host']!r} has to be one address, such as 127.0.0.1 or 0.0.0.0.")
    gpus = [str(gpu) for gpu in params["gpus"] or []]
    problems += [
        f"gpus: {gpu!r} is neither an index nor a UUID."
        for gpu in gpus
        if not re.fullmatch(r"\d+|GPU-[0-9a-fA-F-]+", gpu)
    ]
    if len(set(gpus)) < len(gpus):
        problems.append(f"gpus: {','.join(gpus)} names a GPU twice.")
    problems += [
        f"env: {name!r} cannot be a variable's name." for name in params["env"] if not ENV_NAME.fullmatch(name)
    ]
    for bind in params["binds"]:
        problems += _check_bind(bind)
    return problems + _check_args(split_args(params["args"]))


def image_path(image: str, home: str) -> str:
    """Where the image lies on the host. A relative path begins at the home; an address means <home>/shared and the
    file's own name.
    """
    if "://" not in image:
        return os.path.join(home, os.path.expanduser(image))
    return os.path.join(home, "shared", os.path.basename(image.split("?")[0].split("#")[0]) or "image.sif")


def parse(params: Mapping[str, Any], home: str) -> Spec:
    """The canonical spec of the module's options; raises Refusal with every problem at once."""
    problems = check(params)
    if problems:
        raise Refusal(problems)
    return Spec(
        name=params["name"],
        image=image_path(params["image"], home),
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
    )
