# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server is expected to be: its model, its build, its arguments, and how fast the last release was. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import wait
from .options import Gate

# Seconds for one answer: a large model on a cold cache evaluates its first batch slowly.
PATIENCE = 300


@dataclass(frozen=True)
class Expectation:
    """The model as the record has it (path, size, tensor_bytes, parameters, context_length), what is not known being
    not compared; ``arguments`` are llama-server's own, without the program; ``gpus``: whether it was given any;
    ``last_rate`` in tokens per second, ``last_proven`` the time of that release.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    build: str | None = None
    gpus: bool = False
    gate: Gate = field(default_factory=Gate)
    last_rate: float | None = None
    last_proven: str | None = None

    @property
    def patience(self) -> int:
        """Seconds for one short answer; they grow with the model, whose pages the first ones may have to read."""
        return max(PATIENCE, wait.default_timeout(self.model.get("size")))


def of_record(value: Mapping[str, Any], gate: Gate) -> Expectation:
    """What the record of an instance (instance.json) says about the server that it starts."""
    argv, image, release = value["launch"]["argv"], value["image"] or {}, value["release"] or {}
    # Behind the image stand the program and its arguments.
    at = argv.index(value["spec"]["image"]) + 2 if value["spec"]["image"] in argv else len(argv)
    return Expectation(
        model=value["model"] or {},
        arguments=tuple(argv[at:]),
        build=image.get("build"),
        gpus=bool(value["spec"].get("gpus")),
        gate=gate,
        last_rate=(release.get("completion") or {}).get("tokens_per_second"),
        last_proven=release.get("proven"),
    )
