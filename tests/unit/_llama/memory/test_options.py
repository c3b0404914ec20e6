# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the arguments decides about memory."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory.options import MemoryOptions, parse


def of(line: str, **env: str) -> MemoryOptions:
    return parse(line.split(), env)


def test_llama_servers_defaults() -> None:
    plain = of("-m a")
    assert (plain.context, plain.slots, plain.micro_batch, plain.layers) == (0, 4, 512, None)
    assert (plain.type_k, plain.type_v, plain.split_mode, plain.split, plain.cache_ram) == (
        "f16",
        "f16",
        "layer",
        (),
        8192,
    )
    assert plain.cache_on_gpu
    assert plain.in_page_cache
    assert plain.adapts


def test_what_is_said() -> None:
    said = of("-c 4096 -np 2 -ub 256 -ngl 30 -ctk q8_0 --cache-type-v q4_0 -ts 3/1,2 -sm none -mg 1 -cram 0 -ncmoe 5")
    assert (said.context, said.slots, said.micro_batch, said.layers) == (4096, 2, 256, 30)
    assert (said.type_k, said.type_v, said.split, said.split_mode, said.main_gpu) == (
        "q8_0",
        "q4_0",
        (3.0, 1.0, 2.0),
        "none",
        1,
    )
    assert (said.cache_ram, said.expert_layers) == (0, 5)


def test_of_an_option_that_is_there_twice_the_last_counts() -> None:
    assert of("-c 1 --ctx_size 2").context == 2


def test_the_environment_counts_where_the_command_line_is_silent() -> None:
    env = {"LLAMA_ARG_CTX_SIZE": "100", "LLAMA_ARG_N_PARALLEL": "2"}
    found = of("-c 5", **env)
    assert (found.context, found.slots) == (5, 2)


@pytest.mark.parametrize(
    ("line", "adapts"),
    [
        ("-c 1 -ngl 99", False),
        ("-c 1 -ngl all", False),
        ("-c 1 -ngl auto", True),
        ("-c 1", True),
        ("-ngl 99", True),
        ("-fit off", False),
        ("-c 1 -ngl 99 --fit on", False),
    ],
)
def test_whether_llama_server_may_take_less(line: str, adapts: bool) -> None:
    assert of(line).adapts is adapts


@pytest.mark.parametrize(
    ("line", "cached"),
    [("", True), ("-lm mmap", True), ("--no-mmap", False), ("--mlock", False), ("-lm none", False), ("-lm auto", True)],
)
def test_whether_the_model_lies_in_the_page_cache(line: str, cached: bool) -> None:
    assert of(line).in_page_cache is cached


def test_flags() -> None:
    assert of("-cmoe").expert_layers == 9999
    assert not of("-nkvo").cache_on_gpu
    assert not of("--mmproj p --no-mmproj-offload").projector_on_gpu
    assert of("-ot exps=CPU").overrides
