# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the server has as many slots, and each as much context, as its arguments say.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._llama.argv import flag, number, value_of
from ..._result import Problem
from ..client import WRONG_FORMAT, NotProven, wrong_format
from ..server import Server

# llama.cpp rounds the context of a slot up to a multiple of this (llama-context.cpp).
PAD = 256


def check(server: Server) -> dict[str, Any]:
    """Compare /props with the arguments; returns the number of slots and the tokens that each holds."""
    slots, context = counts(server.props)
    arguments = server.expected.arguments
    problems = []
    parallel = number(value_of(arguments, "-np", "--parallel")) or 0
    if parallel > 0 and slots != parallel:
        remedy = "A later setting overrides it: --parallel again in args, or LLAMA_ARG_N_PARALLEL in env."
        problems.append(Problem("", f"The server has {slots} slots, expected are {parallel} of --parallel", remedy))
    allowed = context_range(arguments, server.expected.model.get("context_length"))
    if allowed and context not in allowed:
        text = f"A slot holds {context} tokens, expected are {allowed.start}"
        remedy = "A later setting overrides it: --ctx-size or --parallel again in args, or LLAMA_ARG_CTX_SIZE in env."
        problems.append(Problem("", text, remedy))
    if problems:
        raise NotProven(*problems)
    return {"slots": slots, "context": context}


def counts(props: Any) -> tuple[int, int]:
    """The number of slots, and the tokens that each holds."""
    try:
        slots, context = props["total_slots"], props["default_generation_settings"]["n_ctx"]
        return int(slots), int(context)
    except WRONG_FORMAT as error:
        raise wrong_format("/props", props) from error


def context_range(arguments: Sequence[str], trained: int | None) -> range | None:
    """The tokens that a slot may hold; None if the arguments leave it to the server.

    An explicit --parallel divides the context, unless the slots share it; without --parallel they share it. Newer
    builds limit a slot to the model's trained length, older ones only warn.
    """
    context = number(value_of(arguments, "-c", "--ctx-size")) or 0
    if context <= 0 or value_of(arguments, "--kv-unified-per-slot") or value_of(arguments, "--override-kv"):
        return None
    parallel = number(value_of(arguments, "-np", "--parallel")) or 0
    shared = flag(arguments, ("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified"))
    if parallel > 0 and not shared:
        context //= parallel
    return range(min(context, trained or context), context + PAD + 1)
