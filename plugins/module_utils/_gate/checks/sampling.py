# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the server's default sampling values are those of its arguments.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..._llama.argv import value_of
from ..._result import Problem
from ..client import WRONG_FORMAT, NotProven, wrong_format
from ..server import Server

# Key in default_generation_settings.params -> spellings of the option (llama.cpp common/arg.cpp, server-task.cpp).
# Each was set to a value that is not its default, and read back from a server of build 11669.
OPTIONS = {
    "temperature": ("--temp", "--temperature"),
    "top_k": ("--top-k",),
    "top_p": ("--top-p",),
    "min_p": ("--min-p",),
    "top_n_sigma": ("--top-nsigma", "--top-n-sigma"),
    "typical_p": ("--typical", "--typical-p"),
    "xtc_probability": ("--xtc-probability",),
    "xtc_threshold": ("--xtc-threshold",),
    "repeat_last_n": ("--repeat-last-n",),
    "repeat_penalty": ("--repeat-penalty",),
    "presence_penalty": ("--presence-penalty",),
    "frequency_penalty": ("--frequency-penalty",),
    "dry_multiplier": ("--dry-multiplier",),
    "dry_base": ("--dry-base",),
    "dry_allowed_length": ("--dry-allowed-length",),
    "dry_penalty_last_n": ("--dry-penalty-last-n",),
    "adaptive_target": ("--adaptive-target",),
    "adaptive_decay": ("--adaptive-decay",),
    "dynatemp_range": ("--dynatemp-range",),
    "dynatemp_exponent": ("--dynatemp-exp",),
    "mirostat": ("--mirostat",),
    "mirostat_eta": ("--mirostat-lr",),
    "mirostat_tau": ("--mirostat-ent",),
    "seed": ("--seed", "-s"),
}
# A float32 has 24 bits, so its rounding error is a smaller fraction than this.
FLOAT32 = 1e-6
# llama-server writes a negative seed as an unsigned number.
SEED_BITS = 2**32


def check(server: Server) -> dict[str, Any]:
    """Compare /props with the arguments. A key that this build does not report is not compared."""
    problems = _differences(server.expected.arguments, server.props)
    if problems:
        raise NotProven(*problems)
    return {}


def expected(arguments: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Option and value by key of /props, for every sampling option in the arguments."""
    found = {}
    for key, names in OPTIONS.items():
        text = value_of(arguments, *names)
        try:
            value = None if text is None else float(text)
        except ValueError:
            continue  # llama-server rejects it, or reads it in a way that is not known here
        if value is not None:
            found[key] = (names[0], _as_reported(key, value))
    return found


def _as_reported(key: str, value: float) -> float:
    if key == "temperature":
        return max(value, 0.0)
    if key == "seed":
        return value % SEED_BITS
    return value


def _differences(arguments: Sequence[str], props: Any) -> list[Problem]:
    try:
        params = props["default_generation_settings"]["params"]
        return [
            Problem(
                "",
                f"The server samples with {key} {params[key]}, expected is {value:g} of {option}",
                "A later setting overrides it: the option a second time in args, or LLAMA_ARG_* in env.",
            )
            for key, (option, value) in expected(arguments).items()
            if key in params and not _same(float(params[key]), value)
        ]
    except WRONG_FORMAT as error:
        raise wrong_format("/props", props) from error


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=FLOAT32, abs_tol=FLOAT32)
