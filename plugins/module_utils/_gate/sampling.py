# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server samples as its arguments say, where a request does not say otherwise. Pure, over /props.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._llama.argv import value_of
from .client import WRONG_SHAPE, wrong_shape

# Key in default_generation_settings.params -> spellings of the option (llama.cpp common/arg.cpp, server-task.cpp);
# each was set to another value than its default and read back from a server of build 11669.
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
    "seed": ("-s", "--seed"),
}
# A float32 has 24 bits, so its nearest value is off by less than this part of it.
FLOAT32 = 1e-6
# A number below zero that stands for another one, where llama-server writes the other one out.
SEED_BITS = 2**32


def expected(arguments: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Of every sampling option that is given, by the key of /props: its name and its value."""
    found = {}
    for key, names in OPTIONS.items():
        text = value_of(arguments, *names)
        try:
            value = None if text is None else float(text)
        except ValueError:
            continue  # llama-server has refused it, or reads more into it than is known here
        if value is not None:
            found[key] = (names[-1] if names[0] == "-s" else names[0], _meant(key, value))
    return found


def _meant(key: str, value: float) -> float:
    if key == "temperature":
        return max(value, 0.0)
    if key == "seed":
        return value % SEED_BITS
    return value


def problems(arguments: Sequence[str], props: Any) -> list[str]:
    """What differs; a key that this build does not show is not compared. Raises NotProven for another shape."""
    try:
        params = props["default_generation_settings"]["params"]
        return [
            f"the server samples with {key} {params[key]}, started with {name} {value:g}. Something that comes later "
            "says otherwise: the option a second time in args, or LLAMA_ARG_* in env"
            for key, (name, value) in expected(arguments).items()
            if key in params and not _same(float(params[key]), value)
        ]
    except WRONG_SHAPE as error:
        raise wrong_shape("/props", props) from error


def _same(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=FLOAT32, abs_tol=FLOAT32)
