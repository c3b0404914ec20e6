# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slots of a server: how many there are, what each holds, and that none of them is stuck.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._llama.argv import flag, number, value_of
from .client import WRONG_SHAPE, NotProven, wrong_shape
from .expectation import Expectation

# llama.cpp rounds the context of a slot up to this many tokens (llama-context.cpp).
PAD = 256
# Seconds in which a slot that works has to move. One batch of a long prompt shows nothing until it is through.
STILL = 60.0
EVERY = 0.5


def counts(props: Any) -> tuple[int, int]:
    """Number of slots, and tokens that one of them holds. Raises NotProven for another shape."""
    try:
        slots, context = props["total_slots"], props["default_generation_settings"]["n_ctx"]
        return int(slots), int(context)
    except WRONG_SHAPE as error:
        raise wrong_shape("/props", props) from error


def problems(expected: Expectation, props: Any) -> list[str]:
    """What differs from the arguments. Raises NotProven for another shape."""
    slots, context = counts(props)
    arguments = expected.arguments
    parallel = number(value_of(arguments, "-np", "--parallel")) or 0
    found = []
    if parallel > 0 and slots != parallel:
        found.append(
            f"the server has {slots} slots, started with --parallel {parallel}. Something that comes later says "
            "otherwise: the option a second time in args, or LLAMA_ARG_N_PARALLEL in env"
        )
    low, high = context_range(arguments, expected.model.get("context_length"))
    if low is not None and high is not None and not low <= context <= high:
        found.append(
            f"a slot holds {context} tokens, expected are {low}. Something that comes later says otherwise: a second "
            "--ctx-size or --parallel in args, or LLAMA_ARG_CTX_SIZE in env"
        )
    return found


def context_range(arguments: Sequence[str], trained: int | None) -> tuple[int | None, int | None]:
    """The least and the most tokens that a slot may hold; None where the arguments leave it to the server.

    An explicit --parallel divides the context, unless the slots share it, as they do where it is not given. Newer
    builds hold a slot to the length that the model was trained with, older ones only warn.
    """
    context = number(value_of(arguments, "-c", "--ctx-size")) or 0
    if context <= 0 or value_of(arguments, "--kv-unified-per-slot") or value_of(arguments, "--override-kv"):
        return None, None
    parallel = number(value_of(arguments, "-np", "--parallel")) or 0
    shared = flag(arguments, ("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified"))
    if parallel > 0 and not shared:
        context //= parallel
    return min(context, trained or context), context + PAD


def standing(slots: Any) -> dict[Any, tuple[Any, ...]]:
    """Of every slot that works, by its number: what tells one state of its work from the next."""
    if not isinstance(slots, list):
        raise wrong_shape("/slots", slots)
    found = {}
    for slot in slots:
        if not isinstance(slot, Mapping):
            raise wrong_shape("/slots", slots)
        if slot.get("is_processing"):
            token = slot.get("next_token")
            first = token[0] if isinstance(token, list) and token else token
            decoded = first.get("n_decoded") if isinstance(first, Mapping) else None
            found[slot.get("id")] = (slot.get("id_task"), slot.get("n_prompt_tokens_processed"), decoded)
    return found


def settled(
    look: Callable[[], Any],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until no slot works, or until every slot that does has moved: it may work for somebody else. ``look`` asks
    for /slots. Raises NotProven for one that stands still.
    """
    end = clock() + STILL
    still = standing(look())
    while still:
        if clock() > end:
            stuck = ", ".join(str(slot) for slot in sorted(still, key=str))
            raise NotProven(
                f"slot {stuck} of /slots works for {STILL:.0f} s and does not move, though every answer was given. The "
                "GPU or the server hangs: nvidia-smi and the kernel's log (Xid) tell"
            )
        sleep(EVERY)
        now = standing(look())
        still = {slot: state for slot, state in still.items() if now.get(slot) == state}
