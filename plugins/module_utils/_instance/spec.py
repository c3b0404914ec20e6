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

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import image_name
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal

# States that need a whole spec; for the others the record on the host tells enough.
WHOLE_STATES = ("started", "restarted", "present")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GPU = re.compile(r"\d+|GPU-[0-9a-fA-F-]+")
LAYERS = re.compile(r"\d{1,4}|auto|all")
# A name or an address, an IPv6 address also in brackets; no list of them, and nothing that looks like an option.
HOST = re.compile(r"[A-Za-z0-9:\[][A-Za-z0-9.:_\[\]-]*")
LONG_OPTION = re.compile(r"--[a-z][a-z0-9-]*")

# What the home holds beside the instances' folders.
RESERVED = ("run", "shared", "supervisor.d", "supervisord.conf", "supervisord.log", "venv")

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
    "-hft": "it shows the token to every user in the process list; gguf_model brings the model",
    "--hf-token": "it shows the token to every user in the process list; gguf_model brings the model",
    "--embeddings": "the proof of an instance is a completion, which such a server does not give",
    "--embedding": "the proof of an instance is a completion, which such a server does not give",
    "--rerank": "the proof of an instance is a completion, which such a server does not give",
    "--reranking": "the proof of an instance is a completion, which such a server does not give",
    "--api-prefix": "the probes expect /health and /v1 at the root; put the prefix into the proxy in front",
    "--ssl-key-file": "the probes speak plain HTTP; end TLS in a proxy in front",
    "--ssl-cert-file": "the probes speak plain HTTP; end TLS in a proxy in front",
    "--models-dir": "an instance serves one model; declare one instance for each",
    "--models-preset": "an instance serves one model; declare one instance for each",
    "-hf": "an instance serves a file of the host; bring it with gguf_model, and name it in model",
    "--hf-repo": "an instance serves a file of the host; bring it with gguf_model, and name it in model",
    "-mu": "an instance serves a file of the host; bring it with gguf_model, and name it in model",
    "--model-url": "an instance serves a file of the host; bring it with gguf_model, and name it in model",
    "-h": "it prints and exits",
    "--help": "it prints and exits",
    "--usage": "it prints and exits",
    "--version": "it prints and exits",
    "--list-devices": "it prints and exits",
    "--cache-list": "it prints and exits",
    "--completion-bash": "it prints and exits",
}


# Variables that are better said, or not at all, each with what to do instead.
UNUSABLE_ENV = {
    "CUDA_DEVICE_ORDER": "GPU numbers are always those of nvidia-smi; name the GPUs in gpus",
    "CUDA_VISIBLE_DEVICES": "the container would not see the GPUs; name them in gpus",
    "LLAMA_API_KEY": "it would stand in the record and in run.sh; put the key into a file and use api_key_file",
}


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


def option_name(argument: str) -> str:
    """The option in llama-server's eyes: in a long option an underscore is a dash (common/arg.cpp)."""
    return argument.replace("_", "-") if argument.startswith("--") else argument


def check_name(name: str) -> list[str]:
    """Problems of an instance's name, which is also the name of its folder and of its unit."""
    if not NAME.fullmatch(name) or ".." in name:
        return [
            f"name: {name!r} cannot be a folder's name. Use letters, digits, dot, dash and underscore, at most 64, "
            "beginning with a letter or digit, without '..'."
        ]
    if name in RESERVED:
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


def _check_image(image: str, sha256: str | None, pull: str) -> list[str]:
    problems = image_name.problems(image, sha256, pull)
    return (
        problems if image_name.is_address(image) else [*problems, *_check_path("image", image_name.path_of(image, "/"))]
    )


def _check_gpus(gpus: Sequence[str]) -> list[str]:
    problems = [
        f"gpus: {gpu!r} is neither an index such as 0 nor a UUID such as GPU-8a3c...; nvidia-smi -L lists both."
        for gpu in gpus
        if not GPU.fullmatch(gpu)
    ]
    if len(set(gpus)) < len(gpus):
        problems.append(f"gpus: {','.join(gpus)} names a GPU twice. Name each once.")
    return problems


def _check_env(env: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            problems.append(f"env: {name!r} cannot be a variable's name. Use letters, digits and underscores.")
        elif name in UNUSABLE_ENV:
            problems.append(f"env: {name} cannot be used: {UNUSABLE_ENV[name]}.")
        if "\0" in str(value):
            problems.append(f"env: the value of {name} holds a NUL byte. Take it out.")
    return problems


def _check_args(argv: Sequence[str]) -> list[str]:
    problems = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        # What stands behind the sign may be a secret, so of these options only the name is shown.
        option = option_name(name)
        if option in OWNED:
            problems.append(f"args: {name} is what the option {OWNED[option]} is for; say it there.")
        elif option in UNUSABLE:
            problems.append(f"args: {name} cannot be used: {UNUSABLE[option]}.")
        elif equals and LONG_OPTION.fullmatch(option_name(name)):
            problems.append(f"args: llama-server knows no {argument!r}; write {name + ' ' + value!r}.")
        if "\0" in argument:
            problems.append(f"args: {argument!r} holds a NUL byte. Take it out.")
    return problems


def check(params: Mapping[str, Any]) -> list[str]:
    """Every problem of the options that can be seen without looking at the host."""
    model, key_file = params["model"], params["api_key_file"]
    problems = check_name(params["name"])
    problems += _check_image(params["image"], params["image_sha256"], params["pull"])
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
    problems += _check_number("wait_timeout", params["wait_timeout"], 1, 86400, "seconds")
    problems += _check_number("drain_timeout", params["drain_timeout"], 0, 3600, "seconds")
    problems += _check_number("lock_timeout", params["lock_timeout"], 0, 86400, "seconds")
    if params["alias"] is not None and (not params["alias"] or not params["alias"].isprintable()):
        problems.append(f"alias: {params['alias']!r} has to be a name on one line.")
    problems += _check_args(split_args(params["args"]))
    problems += _check_env(params["env"])
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


def parse(params: Mapping[str, Any], home: str) -> Spec:
    """The canonical spec of the module's options; raises Refusal with every problem at once."""
    problems = check(params)
    spec = Spec(
        name=params["name"],
        image=image_name.path_of(params["image"], home),
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
    if not check_name(spec.name):
        problems += _check_places(spec, home)
    if problems:
        raise Refusal(problems)
    return spec
