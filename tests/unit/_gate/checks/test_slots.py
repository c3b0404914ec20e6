# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Number and context of the slots against the arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import slots
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import argv
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import PROPS, changed
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED, a_server


# Read from servers of build 11669 that were started with these arguments, with a model trained with 8192 tokens.
@pytest.mark.parametrize(
    ("arguments", "context"),
    [
        (("-c", "65536"), 8192),
        (("-c", "5000", "-np", "3"), 1792),
        (("-c", "4096"), 4096),
        (("-c", "4096", "-np", "4"), 1024),
        (("-c", "4096", "-np", "4", "-kvu"), 4096),
        (("-c", "0"), 8192),
        ((), 8192),
        (("--ctx-size", "4096", "--no-kv-unified"), 4096),
    ],
    ids=str,
)
def test_the_context_of_a_slot(arguments: tuple[str, ...], context: int) -> None:
    props = changed(PROPS, "default_generation_settings", "n_ctx", to=context)
    props["total_slots"] = count = int(argv.value_of(arguments, "-np") or 4)
    server = a_server(expected=replace(EXPECTED, arguments=arguments), props=props)
    assert slots.check(server) == {"slots": count, "context": context}


def test_an_old_build_does_not_limit_the_context_to_the_trained_length() -> None:
    assert slots.context_range(("-c", "65536"), 8192) == range(8192, 65536 + slots.PAD + 1)


def test_too_little_context_and_too_few_slots() -> None:
    props = changed({**PROPS, "total_slots": 1}, "default_generation_settings", "n_ctx", to=2048)
    with pytest.raises(NotProven) as error:
        slots.check(a_server(expected=replace(EXPECTED, arguments=("-c", "8192", "--parallel", "2")), props=props))
    assert [problem.text for problem in error.value.problems] == [
        "The server has 1 slots, expected are 2 of --parallel",
        "A slot holds 2048 tokens, expected are 4096",
    ]
