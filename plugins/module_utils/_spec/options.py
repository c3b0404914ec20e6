# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of an instance: one table, from which everything else about them follows.

Private to gpufleet.llamacpp; may change at any time. From a row follow the module's argument spec, the range check, the
place on llama-server's command line, the words that ``args`` and ``env`` may not use, the key in the record, and what
the filter ``declared`` accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._host.manager import CHOICES

# A name or an address, an IPv6 address also in brackets; no list of them, nothing like an option, no unix socket.
HOST = re.compile(r"(?!.*\.sock\Z)[A-Za-z0-9:\[][A-Za-z0-9.:_\[\]-]*")
LAYERS = re.compile(r"\d{1,4}|auto|all")
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Option:
    """One option.

    ``type``, ``default``, ``choices``, ``elements``, ``suboptions``, ``required`` and ``no_log`` are Ansible's.

    ``flags``: llama-server's spellings of it, the first one as it is written on the command line; ``variable``: its
    variable (llama.cpp common/arg.cpp, builds 10434 to 11669). ``place``: where it stands among llama-server's
    arguments, in the order of the operator's documentation; None for an option that is no argument. ``in_container``:
    the value is a path of the host, and llama-server gets the path that the container sees. ``exclusive``: ``args`` and
    ``env`` may not use llama-server's words even where the option is not set; False for an option that is newer than
    inventories that do so.

    ``bounds``: lowest and highest value, and what they count. ``accepts`` and ``expected``: what a text has to be.

    ``recorded``: part of the spec that the host's record keeps. ``noticed``: a running server notices a change, so a
    change of it is a restart. ``shapes``: a wrong value hides what else is wrong, because a path or the shape of the
    command depends on it.
    """

    name: str
    type: str = "str"
    default: Any = None
    choices: tuple[str, ...] = ()
    elements: str = ""
    suboptions: Mapping[str, Mapping[str, Any]] | None = None
    required: bool = False
    no_log: bool | None = None
    flags: tuple[str, ...] = ()
    variable: str = ""
    place: int | None = None
    in_container: bool = False
    exclusive: bool = True
    bounds: tuple[int, int, str] | None = None
    accepts: Callable[[str], object] | None = None
    expected: str = ""
    recorded: bool = False
    noticed: bool = True
    shapes: bool = True

    @property
    def argument(self) -> dict[str, Any]:
        """The option as Ansible's argument spec has it."""
        spec: dict[str, Any] = {"type": self.type}
        if self.required:
            spec["required"] = True
        if self.choices:
            spec["choices"] = list(self.choices)
        if self.elements:
            spec["elements"] = self.elements
        if self.default is not None:
            spec["default"] = self.default
        if self.suboptions:
            spec["options"] = {name: dict(option) for name, option in self.suboptions.items()}
        if self.no_log is not None:
            spec["no_log"] = self.no_log
        return spec

    @property
    def plain(self) -> bool:
        """Whether the value goes to llama-server as it is, and nothing else depends on it."""
        return self.place is not None and self.name not in ("model", "host", "port", "args", "api_key_file")


OPTIONS = (
    Option("name", required=True, recorded=True),
    Option("state", choices=("started", "restarted", "present", "stopped", "absent"), default="started"),
    Option("home", type="path"),
    Option("image", recorded=True),
    Option("image_sha256"),
    Option("image_auth_file", type="path", no_log=False),  # the path is no secret
    Option("image_no_https", type="bool", default=False),
    Option("image_ca_path", type="path"),
    Option("pull", choices=("missing", "always", "never"), default="missing"),
    Option(
        "model",
        type="path",
        recorded=True,
        flags=("-m", "--model"),
        variable="LLAMA_ARG_MODEL",
        place=1,
        in_container=True,
    ),
    Option(
        "port",
        type="int",
        recorded=True,
        flags=("--port",),
        variable="LLAMA_ARG_PORT",
        place=4,
        bounds=(1, 65535, "TCP ports"),
    ),
    Option(
        "host",
        default="127.0.0.1",
        recorded=True,
        flags=("--host",),
        variable="LLAMA_ARG_HOST",
        place=5,
        accepts=HOST.fullmatch,
        expected="one address, such as 127.0.0.1 or 0.0.0.0",
    ),
    Option(
        "alias",
        recorded=True,
        flags=("--alias", "-a"),
        variable="LLAMA_ARG_ALIAS",
        place=7,
        accepts=lambda name: name and name.isprintable(),
        expected="a name on one line",
        shapes=False,
    ),
    Option("gpus", type="list", elements="str", default=[], recorded=True),
    Option(
        "gpu_layers",
        recorded=True,
        flags=("-ngl", "--gpu-layers", "--n-gpu-layers"),
        variable="LLAMA_ARG_N_GPU_LAYERS",
        place=2,
        accepts=LAYERS.fullmatch,
        expected="a number of layers, auto or all",
    ),
    Option(
        "context_size",
        type="int",
        recorded=True,
        flags=("-c", "--ctx-size"),
        variable="LLAMA_ARG_CTX_SIZE",
        place=3,
        bounds=(0, LARGEST, "tokens; 0 is the model's own"),
        shapes=False,
    ),
    Option(
        "threads",
        type="int",
        recorded=True,
        flags=("-t", "--threads"),
        variable="LLAMA_ARG_THREADS",
        place=6,
        bounds=(1, 4096, "CPU threads"),
        shapes=False,
    ),
    Option(
        "parallel",
        type="int",
        recorded=True,
        flags=("-np", "--parallel"),
        variable="LLAMA_ARG_N_PARALLEL",
        place=8,
        bounds=(1, 4096, "slots"),
        exclusive=False,
        shapes=False,
    ),
    Option("args", type="list", elements="str", default=[], recorded=True, place=50, shapes=False),
    Option("allow_options", type="list", elements="str", default=[], shapes=False),
    Option("env", type="dict", default={}, recorded=True, shapes=False),
    Option("binds", type="list", elements="str", default=[], recorded=True),
    Option(
        "api_key_file",
        type="path",
        no_log=False,  # the path is no secret; what is in the file never leaves the host
        recorded=True,
        flags=("--api-key-file",),
        variable="LLAMA_ARG_API_KEY_FILE",
        place=100,
        in_container=True,
    ),
    Option("min_build", type="int", bounds=(1, LARGEST, "a build's number, such as 11434"), shapes=False),
    Option("server_path", recorded=True),
    Option("manager", choices=CHOICES, default="auto", recorded=True),
    Option("user", default="llamacpp", recorded=True),
    Option("wait_timeout", type="int", bounds=(1, 86400, "seconds"), shapes=False),
    Option("gate", choices=("health", "completion", "full"), default="full"),
    Option(
        "gate_prompts",
        type="list",
        elements="dict",
        default=[],
        suboptions={
            "prompt": {"type": "str", "required": True},
            "pattern": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 60},
        },
        shapes=False,
    ),
    Option("gate_prompt_tokens", type="int", no_log=False, shapes=False),  # tokens of a text, and no secret
    Option("max_slowdown", shapes=False),
    # The runner reads it when it stops the server, so it takes effect without a restart.
    Option(
        "drain_timeout",
        type="int",
        default=60,
        bounds=(0, 3600, "seconds"),
        recorded=True,
        noticed=False,
        shapes=False,
    ),
    Option("rollback", type="bool", default=True),
    Option("lock_timeout", type="int", default=60, bounds=(0, 86400, "seconds"), shapes=False),
)

BY_NAME = {option.name: option for option in OPTIONS}
INSTANCE: dict[str, dict[str, Any]] = {option.name: option.argument for option in OPTIONS}
RECORDED = tuple(option for option in OPTIONS if option.recorded)
ARGUMENTS = tuple(sorted((option for option in OPTIONS if option.place is not None), key=lambda one: one.place or 0))
PLAIN = tuple(option for option in ARGUMENTS if option.plain)
NOT_NOTICED = tuple(option.name for option in RECORDED if not option.noticed)
# llama-server's spellings and variables, each with the option that stands for it.
OWNED = {word: option.name for option in ARGUMENTS for word in (*option.flags, option.variable) if word}
# An instance's keys in an inventory: the home is the host's.
DECLARED = tuple(option.name for option in OPTIONS if option.name != "home")
