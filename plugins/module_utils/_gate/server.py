# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check gets: the server, what it reports about itself, and what is expected of it.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .._result import Problem
from .client import ApiClient
from .expectation import Expectation


@dataclass(frozen=True)
class Server:
    """A server that reports ready. ``props`` and ``models`` are its replies to /props and /v1/models.

    ``gpu_problems`` reads the host's GPUs and returns what is wrong with the server's use of them.
    """

    api: ApiClient
    expected: Expectation
    props: Any
    models: Any
    gpu_problems: Callable[[], Sequence[Problem]]
