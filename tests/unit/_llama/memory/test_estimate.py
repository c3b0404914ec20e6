# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The estimate of memory from a GGUF header, against what llama.cpp's own tool printed for the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.header import Array, Gguf, Tensor
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory.estimate import estimate
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory.options import parse

MIB = 1 << 20
KIB = 1 << 10
# SmolLM2-135M Q4_1: a layer has about 2.1 MiB of weights, the table of tokens 28.7 MiB, and there is no output matrix.
LAYER_SIZE, EMBEDDING = 2165 * KIB, 29390 * KIB
VOCABULARY = 49152
FREE = (143146 * MIB,) * 4


def smollm(*more: Tensor, **keys: Any) -> list[Gguf]:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 30,
        "llama.context_length": 8192,
        "llama.embedding_length": 576,
        "llama.attention.head_count": 9,
        "llama.attention.head_count_kv": 3,
        "tokenizer.ggml.tokens": Array(8, VOCABULARY),
        **keys,
    }
    layers = [Tensor(f"blk.{layer}.ffn_up.weight", 0, 0, LAYER_SIZE, 1) for layer in range(30)]
    return [Gguf("a", 0, 3, metadata, (Tensor("token_embd.weight", 0, 0, EMBEDDING, 1), *layers, *more), 0)]


def columns(line: str, free: Sequence[int] = FREE, parts: list[Gguf] | None = None) -> tuple[list[int], list[int]]:
    """Model and context in MiB of each device, the host last."""
    found = estimate(parts or smollm(), parse(line.split(), {}), free)
    return [one.model // MIB for one in found], [one.context // MIB for one in found]


@pytest.mark.parametrize(
    ("line", "model", "context"),
    [
        # The tool's words for the same: RPC0 16 384, RPC1 16 384, RPC2 16 384, RPC3 41 288, Host 28 0; and so on.
        ("-ngl 99", [16, 16, 16, 41, 28], [384, 384, 384, 288, 0]),
        ("-ngl 99 -ts 3,1,0,0", [50, 41, 0, 0, 28], [1152, 288, 0, 0, 0]),
        ("-ngl 99 -sm none -mg 2", [0, 0, 92, 0, 28], [0, 0, 1440, 0, 0]),
        ("-ngl 0", [0, 0, 0, 0, 92], [0, 0, 0, 0, 1440]),
        ("-ngl auto", [16, 16, 16, 41, 28], [384, 384, 384, 288, 0]),
        ("-ngl 99 -nkvo", [16, 16, 16, 41, 28], [0, 0, 0, 0, 1440]),
        ("-ngl 99 -ctk q8_0 -ctv q8_0", [16, 16, 16, 41, 28], [204, 204, 204, 153, 0]),
    ],
)
def test_where_the_layers_go(line: str, model: list[int], context: list[int]) -> None:
    assert columns(f"-c 65536 {line}") == (model, context)


def test_some_layers_on_the_cpu() -> None:
    # 11 of 31, the last ten layers and the output: six layers, then four and the output.
    model, context = columns("-c 65536 -ngl 11", FREE[:2])
    assert model == [12, 37, 70]
    assert context == [288, 192, 960]


def test_more_free_memory_takes_more_layers() -> None:
    model, dummy = columns("-c 65536 -ngl 99", [3 * MIB, MIB])
    assert model == [50, 41, 28]


def test_the_models_own_context_where_none_is_said() -> None:
    assert sum(columns("-ngl 99")[1]) == 1440 * 8192 // 65536


def test_an_output_matrix_and_experts() -> None:
    output = Tensor("output.weight", 0, 0, 100 * MIB, 1)
    experts = [Tensor(f"blk.{layer}.ffn_up_exps.weight", 0, 0, 10 * MIB, 1) for layer in range(30)]
    parts = smollm(output, *experts)
    assert columns("-c 256 -ngl 99", FREE[:1], parts)[0] == [463, 28]
    assert columns("-c 256 -ngl 99 -cmoe", FREE[:1], parts)[0] == [163, 328]
    assert columns("-c 256 -ngl 99 -ncmoe 3", FREE[:1], parts)[0] == [433, 58]


def test_computing_takes_scratch_and_the_logits_where_the_output_is() -> None:
    found = estimate(smollm(), parse(["-c", "256", "-ngl", "99", "-ub", "1024"], {}), FREE)
    assert [one.compute // MIB for one in found] == [256, 256, 256, 256 + 192, 64]
    assert [one.name for one in found] == ["GPU0", "GPU1", "GPU2", "GPU3", "Host"]


def test_no_gpu_at_all() -> None:
    (host,) = estimate(smollm(), parse(["-c", "65536", "-ngl", "99"], {}), [])
    assert (host.model // MIB, host.context // MIB, host.compute // MIB) == (92, 1440, 256 + 96)


def test_a_header_that_says_nothing_is_no_accident() -> None:
    parts = [Gguf("a", 0, 3, {"general.architecture": "x"}, (), 0)]
    found = estimate(parts, parse(["-ngl", "99"], {}), FREE)
    assert [one.model for one in found] == [0] * 5
