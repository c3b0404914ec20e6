# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launch: the exact command, environment and probe address that a spec means on this host. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._gguf import file as gguf
from .._host import runtime
from .options import ARGUMENTS, BY_NAME
from .spec import Spec

# Seconds between SIGTERM and SIGKILL.
STOP_TIMEOUT = 30
# Seconds in which a request being worked on has to move; a GPU that hangs moves nothing.
STALL_TIMEOUT = 300

MODELS_INSIDE = "/models"

# The container's command gets this environment and nothing of the caller's; XDG_CONFIG_HOME keeps llama-server from
# reading a config.ini (llama.cpp common/arg.cpp reads it before the command line).
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NO_CONFIG = "/nonexistent"
# Options with a file that llama-server itself writes.
WRITTEN = ("--log-file", "--lookup-cache-dynamic", "-lcd")


@dataclass(frozen=True)
class Found:
    """What the host has to offer for the spec; None where it is not known yet (check mode before a first deploy)."""

    runtime: str | None
    server_path: str | None
    image_sha256: str | None
    model_sha256: str | None
    certificates: tuple[str, ...]
    # Whom a system unit runs the server as; None where that is who deploys.
    user: str | None
    user_home: str
    # UUIDs of the GPUs asked for, in PCI order; None where NVML could not be asked, and the operator's words stay.
    gpus: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Launch:
    """The exact command that runs on this host, and what the runner needs to know about it.

    ``container`` is the runtime's command up to the image, ``server`` the program in the image, ``arguments`` its own.
    ``env`` is the environment of the whole; ``url`` is where this host reaches the server; ``files`` are what it reads;
    timeouts are seconds; ``gpus`` are UUIDs, None where the operator's words were passed on.
    """

    id: str
    container: tuple[str, ...]
    server: str
    arguments: tuple[str, ...]
    env: Mapping[str, str]
    url: str
    api_key_file: str | None
    state_file: str
    files: tuple[str, ...]
    log: str | None
    drain_timeout: int
    image_sha256: str | None
    model_sha256: str | None
    gpus: tuple[str, ...] | None
    stop_timeout: int = STOP_TIMEOUT
    stall_timeout: int = STALL_TIMEOUT

    @property
    def argv(self) -> list[str]:
        """The whole command."""
        return [*self.container, self.server, *self.arguments]

    @classmethod
    def from_json(cls, value: Mapping[str, Any], image: str) -> Launch:
        """A launch as a record has it, where the command is one list: it is cut behind the image."""
        argv = list(value["argv"])
        at = argv.index(image) + 1
        known = {name: value[name] for name in ("id", "env", "url", "image_sha256", "model_sha256")}
        gpus, default = value.get("gpus"), BY_NAME["drain_timeout"].default
        return cls(
            container=tuple(argv[:at]),
            server=argv[at],
            arguments=tuple(argv[at + 1 :]),
            api_key_file=value.get("api_key_file"),
            state_file=value.get("state_file") or "",
            files=tuple(value.get("files") or ()),
            log=value.get("log"),
            drain_timeout=value.get("drain_timeout", default),
            stop_timeout=value.get("stop_timeout", STOP_TIMEOUT),
            stall_timeout=value.get("stall_timeout", STALL_TIMEOUT),
            gpus=None if gpus is None else tuple(gpus),
            **known,
        )

    def to_json(self) -> dict[str, Any]:
        """The launch for a record, as the runner reads it."""
        return {
            "id": self.id,
            "argv": self.argv,
            "env": dict(self.env),
            "url": self.url,
            "api_key_file": self.api_key_file,
            "state_file": self.state_file,
            "files": list(self.files),
            "log": self.log,
            "drain_timeout": self.drain_timeout,
            "stop_timeout": self.stop_timeout,
            "stall_timeout": self.stall_timeout,
            "image_sha256": self.image_sha256,
            "model_sha256": self.model_sha256,
            "gpus": None if self.gpus is None else list(self.gpus),
        }


def inside(path: str, binds: Sequence[str]) -> str | None:
    """The path as the container sees it through the most specific bind, or None where no bind covers it."""
    best: tuple[str, str] | None = None
    for bind in binds:
        outer, dummy, rest = bind.partition(":")
        inner = rest.split(":")[0] or outer
        covers = path == outer or path.startswith(outer.rstrip("/") + "/")
        if covers and (best is None or len(outer) > len(best[0])):
            best = (outer, inner)
    if best is None:
        return None
    relative = path[len(best[0].rstrip("/")) :].lstrip("/")
    return os.path.join(best[1], relative) if relative else best[1]


def outside(path: str, binds: Sequence[str]) -> str:
    """The file of the host that the container sees under this path; the path itself where no bind covers it."""
    best = ("", "")
    for bind in binds:
        outer, dummy, rest = bind.partition(":")
        inner = (rest.split(":")[0] or outer).rstrip("/")
        if (path == inner or path.startswith(inner + "/")) and len(inner) >= len(best[0]):
            best = (inner, outer.rstrip("/"))
    return best[1] + path[len(best[0]) :]


def all_binds(spec: Spec) -> list[str]:
    """The operator's binds; the model's folder at /models and the key file where they do not cover them already."""
    binds = list(spec.binds)
    if inside(spec.model, binds) is None:
        binds.append(f"{os.path.dirname(spec.model)}:{MODELS_INSIDE}:ro")
    if spec.api_key_file and inside(spec.api_key_file, binds) is None:
        binds.append(f"{spec.api_key_file}:{spec.api_key_file}:ro")
    return binds


def server_argv(spec: Spec, server: str) -> list[str]:
    """llama-server's own command line, in the order and spelling of the operator's documentation."""
    binds = all_binds(spec)
    argv = [server]
    for option in ARGUMENTS:
        value = spec.value(option.name)
        if option.name == "args":
            argv += spec.args
        elif value is not None:
            argv += [option.flags[0], (option.in_container and inside(value, binds)) or str(value)]
    return argv


def container_env(spec: Spec, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """The variables that llama-server sees: the GPUs in the order of nvidia-smi, then the operator's own.

    ``gpus`` are the UUIDs that the operator's words mean: an index means another GPU when one drops off the bus.
    """
    env = {"XDG_CONFIG_HOME": NO_CONFIG}
    if spec.gpus:
        # Without this CUDA numbers the fastest GPU first, and an index would mean another GPU than in nvidia-smi.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        env["CUDA_VISIBLE_DEVICES"] = ",".join(spec.gpus if gpus is None else gpus)
    return {**env, **dict(spec.env)}


def env_word(name: str, value: str) -> str:
    """The value of --env, which the runtimes parse with pflag's StringToString: a word with one equals sign is taken as
    it stands but for double quotes at its ends, one with more is a line of CSV.
    """
    pair = f"{name}={value}"
    if "=" not in value and not value.endswith('"'):
        return pair
    field = '"' + pair.replace('"', '""') + '"'
    # Said twice, it has two equals signs, so that it is read as CSV.
    return field if "=" in value else f"{field},{field}"


def container_argv(spec: Spec, found: Found) -> list[str]:
    """The container's part of the command: runtime, isolation, binds, environment, image."""
    argv = [found.runtime or "apptainer", "exec"]
    if spec.gpus:
        argv.append("--nv")
    argv += runtime.ISOLATION
    for bind in [*found.certificates, *all_binds(spec)]:
        argv += ["--bind", bind]
    for name, value in container_env(spec, found.gpus).items():
        argv += ["--env", env_word(name, value)]
    return [*argv, spec.image]


def server_files(spec: Spec) -> list[str]:
    """What the server reads, as the host calls it: image, every part of the model, keys, and files that args name."""
    binds = all_binds(spec)
    pairs = zip(("", *spec.args), spec.args)
    named = [outside(word, binds) for option, word in pairs if word.startswith("/") and option not in WRITTEN]
    keys = [spec.api_key_file] if spec.api_key_file else []
    try:
        parts = gguf.split_paths(spec.model)
    except gguf.GgufError:  # the survey says what is wrong with it
        parts = [spec.model]
    return list(dict.fromkeys([spec.image, *parts, *keys, *named]))


def probe_url(spec: Spec) -> str:
    """Where this host reaches the instance: the address it listens on, or loopback where it listens on all."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(spec.host, spec.host).strip("[]")
    return f"http://[{address}]:{spec.port}" if ":" in address else f"http://{address}:{spec.port}"


def build(spec: Spec, found: Found, *, state_file: str, log: str | None) -> Launch:
    """The launch that the runner reads. Its id changes exactly when a running server would differ."""
    server, *arguments = server_argv(spec, spec.server_path or found.server_path or "llama-server")
    container = container_argv(spec, found)
    env = {"PATH": PATH, "HOME": found.user_home, "LANG": "C.UTF-8"}
    identity = [[*container, server, *arguments], env, found.user, found.image_sha256, found.model_sha256]
    return Launch(
        id=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12],
        container=tuple(container),
        server=server,
        arguments=tuple(arguments),
        env=env,
        url=probe_url(spec),
        api_key_file=spec.api_key_file,
        state_file=state_file,
        files=tuple(server_files(spec)),
        log=log,
        drain_timeout=spec.drain_timeout,
        image_sha256=found.image_sha256,
        model_sha256=found.model_sha256,
        gpus=found.gpus,
    )
