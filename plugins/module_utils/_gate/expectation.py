# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is expected of a server: its model, build, arguments, gate, and the speed of the last release. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._spec.record import Record
from . import wait
from .options import Gate

# Seconds for one reply: a large model evaluates its first batch slowly from a cold cache.
REPLY_TIMEOUT = 300


@dataclass(frozen=True)
class Expectation:
    """``model`` is that of the record (path, size, tensor_bytes, parameters, context_length); a value that is missing
    is not compared. ``arguments``: llama-server's own, without the program. ``gpus``: whether it was given any.
    ``last_rate`` (tokens per second) and ``last_proven`` (time) are those of the last release.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    build: str | None = None
    gpus: bool = False
    gate: Gate = field(default_factory=Gate)
    last_rate: float | None = None
    last_proven: str | None = None

    @property
    def reply_timeout(self) -> int:
        """Seconds for a short reply. More for a larger model, because the first reply may have to read it from disk."""
        return max(REPLY_TIMEOUT, wait.default_timeout(self.model.get("size")))


def of_record(record: Record, gate: Gate) -> Expectation:
    """The expectation for the server of an instance's record."""
    release = record.release
    return Expectation(
        model=record.model.to_json() if record.model else {},
        arguments=record.launch.arguments,
        build=record.image.build if record.image else None,
        gpus=bool(record.spec.gpus),
        gate=gate,
        last_rate=release.completion.get("tokens_per_second") if release else None,
        last_proven=release.proven if release else None,
    )
