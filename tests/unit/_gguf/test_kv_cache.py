# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The size of the KV cache of known models and of single layers."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.kv_cache import KvCache, kv_cache

MIB = 1 << 20


def metadata(architecture, **keys):
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()},
    }


SMOLLM = metadata("llama", block_count=30, embedding_length=576, attention__head_count=9, attention__head_count_kv=3)
GLM_FLASH = metadata(
    "deepseek2",
    block_count=47,
    embedding_length=2048,
    attention__head_count=20,
    attention__head_count_kv=1,
    attention__key_length=576,
    attention__value_length=512,
    attention__key_length_mla=256,
    attention__value_length_mla=256,
)
GLM = metadata(
    "glm4moe",
    block_count=93,
    nextn_predict_layers=1,
    embedding_length=5120,
    attention__head_count=96,
    attention__head_count_kv=8,
    attention__key_length=128,
    attention__value_length=128,
)
DEEPSEEK_OLD = metadata(
    "deepseek2",
    block_count=60,
    embedding_length=5120,
    attention__head_count=128,
    attention__head_count_kv=128,
    attention__key_length=192,
    attention__value_length=128,
)


@pytest.mark.parametrize(
    ("model", "per_token"), [(SMOLLM, 23040), (GLM_FLASH, 54144), (GLM, 376832), (DEEPSEEK_OLD, 4915200)]
)
def test_known_models(model, per_token):
    assert kv_cache(model).bytes_per_token() == per_token


def test_totals():
    assert kv_cache(SMOLLM).total(65536) == 1440 * MIB
    assert kv_cache(GLM_FLASH).total(65536) == 3384 * MIB
    assert kv_cache(GLM_FLASH).total(65536, "q8_0", "q8_0") // MIB == 1797  # 1797.75
    assert kv_cache(DEEPSEEK_OLD).total(65536) == 300 * 1024 * MIB


def test_cells_are_rounded_up():
    assert kv_cache(SMOLLM).total(1) == 256 * 23040


def test_a_number_of_heads_for_each_layer():
    model = metadata(
        "nemotron_h",
        block_count=4,
        embedding_length=64,
        attention__head_count=4,
        attention__head_count_kv=(0, 2, 0, 4),
    )
    assert kv_cache(model).bytes_per_token() == (2 + 4) * (16 + 16) * 2


def test_a_model_without_grouped_heads_uses_all():
    model = metadata("gpt2", block_count=1, embedding_length=64, attention__head_count=4)
    assert kv_cache(model).bytes_per_token() == 4 * 32 * 2


WINDOWED = {
    "block_count": 12,
    "embedding_length": 64,
    "attention__head_count": 4,
    "attention__head_count_kv": 1,
    "attention__sliding_window": 1024,
}


@pytest.mark.parametrize(
    ("architecture", "keys", "full", "windowed"),
    [
        ("gemma3", {}, 2, 10),  # known for its architecture: one layer in 6
        ("gemma3", {"attention__sliding_window_pattern": 4}, 3, 9),  # said in the file
        ("gemma4", {"attention__sliding_window_pattern": (True, True, False)}, 4, 8),
        ("gpt-oss", {}, 6, 6),
        ("smallthinker", {}, 3, 9),
        ("deepseek4", {"attention__sliding_window_pattern": 0}, 0, 12),
        ("unheard_of", {}, 12, 0),  # an upper bound
        ("gemma3", {"attention__sliding_window": 0}, 12, 0),
        ("gemma3", {"attention__shared_kv_layers": 6}, 1, 5),
    ],
)
def test_sliding_windows(architecture, keys, full, windowed):
    cache = kv_cache(metadata(architecture, **{**WINDOWED, **keys}))
    assert cache.bytes_per_token() == full * 64
    assert cache.window_bytes_per_token() == windowed * 64
    assert cache.window == (1024 if windowed else 0)


def test_window_layers_hold_the_window_and_a_micro_batch_for_each_sequence():
    cache = KvCache(k=10, v=10, window=1000, window_k=100, window_v=100)
    assert cache.total(65536, sequences=4) == 65536 * 40 + 4608 * 400
    assert cache.total(512, sequences=4) == 512 * 40 + 512 * 400


def test_window_layers_with_other_lengths():
    keys = {**WINDOWED, "attention__key_length_swa": 32, "attention__value_length_swa": 8}
    cache = kv_cache(metadata("gemma3", **keys))
    assert cache.window_bytes_per_token() == 10 * (32 + 8) * 2


def test_recurrent_layers_have_no_cache():
    keys = {key: value for key, value in WINDOWED.items() if key != "attention__sliding_window"}
    assert kv_cache(metadata("qwen3next", **keys, ssm__state_size=128)).bytes_per_token() == 3 * 64
    assert kv_cache(metadata("qwen3next", **keys, full_attention_interval=2)).bytes_per_token() == 6 * 64
    mamba = metadata("mamba", block_count=24, embedding_length=768, attention__head_count=0, ssm__state_size=16)
    assert kv_cache(mamba).bytes_per_token() == 0


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"general.architecture": 5},
        metadata("clip"),
        metadata("llama", block_count=10**9, embedding_length=1, attention__head_count=1),
        metadata("llama", block_count=-1, embedding_length=1, attention__head_count=1),
        metadata("llama", block_count="30", embedding_length=1, attention__head_count=1),
    ],
)
def test_metadata_without_a_cache(model):
    assert kv_cache(model) is None
