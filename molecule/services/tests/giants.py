# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the four services' real models without their content: the real headers and sizes, and holes.

Runs on a host, with its standard library and the collection's module_utils. A record that matches each file keeps the
deploy from hashing hundreds of GB of zeros. The hyperparameters are those of the models' published config.json; the
tensors are those that llama.cpp's loaders for deepseek2 and glm4moe read.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.file_record import record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.describe import READER
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.file import read, split_paths
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.file import summary as gguf_summary
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.types import TENSOR_TYPES
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.layout import MODEL_RECORDS
from gguf_builder import header, key, padded, tensor

F32, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K = 0, 8, 10, 11, 12, 13, 14
Tensor = tuple[str, tuple[int, ...], int]


def deepseek2(
    *,
    layers: int,
    width: int,
    heads: int,
    feed_forward: int,
    experts: int,
    query: int,
    nope: int,
    value: int,
    words: int,
    types: tuple[int, int],
    latent: bool,
) -> Iterator[Tensor]:
    """The tensors of DeepSeek V2 and of GLM-4.7-Flash; ``latent``: converted so that the cache is that of MLA."""
    most, down = types
    rope, lora, expert = 64, 512, 1536
    shared = expert * (1 if latent else 2)
    yield "token_embd.weight", (width, words), most
    yield "output_norm.weight", (width,), F32
    yield "output.weight", (width, words), Q6_K
    for layer in range(layers):
        named = f"blk.{layer}."
        yield named + "attn_norm.weight", (width,), F32
        yield named + "attn_q_a.weight", (width, query), most
        yield named + "attn_q_a_norm.weight", (query,), F32
        yield named + "attn_q_b.weight", (query, heads * (nope + rope)), most
        yield named + "attn_kv_a_mqa.weight", (width, lora + rope), most
        yield named + "attn_kv_a_norm.weight", (lora,), F32
        if latent:
            yield named + "attn_k_b.weight", (nope, lora, heads), Q8_0
            yield named + "attn_v_b.weight", (lora, value, heads), Q8_0
        else:
            yield named + "attn_kv_b.weight", (lora, heads * (nope + value)), most
        yield named + "attn_output.weight", (heads * value, width), most
        yield named + "ffn_norm.weight", (width,), F32
        if layer == 0:
            yield from _dense(named, width, feed_forward, most)
        else:
            yield named + "ffn_gate_inp.weight", (width, experts), F32
            yield named + "exp_probs_b.bias", (experts,), F32
            yield from _experts(named, width, expert, experts, shared, most, down)


def glm4moe(
    *, layers: int, width: int, heads: int, feed_forward: int, experts: int, words: int, types: tuple[int, int]
) -> Iterator[Tensor]:
    """The tensors of GLM-4.7; its last layer predicts tokens ahead, and is loaded with the others."""
    most, down = types
    size, groups, expert = 128, 8, 1536
    yield "token_embd.weight", (width, words), Q4_K
    yield "output_norm.weight", (width,), F32
    yield "output.weight", (width, words), Q6_K
    for layer in range(layers):
        named = f"blk.{layer}."
        yield named + "attn_norm.weight", (width,), F32
        yield named + "post_attention_norm.weight", (width,), F32
        for what, count in (("q", heads), ("k", groups), ("v", groups)):
            yield named + f"attn_{what}.weight", (width, size * count), Q4_K
            yield named + f"attn_{what}.bias", (size * count,), F32
        for what in "qk":
            yield named + f"attn_{what}_norm.weight", (size,), F32
        yield named + "attn_output.weight", (heads * size, width), Q4_K
        if layer < 3:
            yield from _dense(named, width, feed_forward, Q4_K)
        else:
            yield named + "ffn_gate_inp.weight", (width, experts), F32
            yield named + "exp_probs_b.bias", (experts,), F32
            yield from _experts(named, width, expert, experts, expert, most, down)
    ahead = f"blk.{layers - 1}.nextn."
    yield ahead + "eh_proj.weight", (2 * width, width), Q4_K
    for what in ("enorm", "hnorm", "shared_head_norm"):
        yield ahead + what + ".weight", (width,), F32


def _dense(named: str, width: int, feed_forward: int, kind: int) -> Iterator[Tensor]:
    yield named + "ffn_gate.weight", (width, feed_forward), kind
    yield named + "ffn_up.weight", (width, feed_forward), kind
    yield named + "ffn_down.weight", (feed_forward, width), kind


def _experts(named: str, width: int, expert: int, experts: int, shared: int, most: int, down: int) -> Iterator[Tensor]:
    for what in ("gate", "up"):
        yield named + f"ffn_{what}_exps.weight", (width, expert, experts), most
        yield named + f"ffn_{what}_shexp.weight", (width, shared), most
    yield named + "ffn_down_exps.weight", (expert, width, experts), down
    yield named + "ffn_down_shexp.weight", (shared, width), down


def keys(architecture: str, name: str, words: int, **values: int | float | bool) -> list[bytes]:
    """The header's keys; a vocabulary without words, as the loader takes where none is needed."""
    kinds = {bool: "bool", int: "u32", float: "f32"}
    return [
        key("general.architecture", "str", architecture),
        key("general.name", "str", name),
        key("tokenizer.ggml.model", "str", "no_vocab"),
        key(f"{architecture}.vocab_size", "u32", words),
        *(key(f"{architecture}.{one.replace('__', '.')}", kinds[type(given)], given) for one, given in values.items()),
    ]


def write(path: str, parts: int, about: list[bytes], tensors: list[Tensor]) -> None:
    """The model's files, all holes behind the headers. Tensors are dealt out in their order."""
    share = -(-len(tensors) // parts)
    stem = path.removesuffix(".gguf")
    for part in range(parts):
        rows, at = [], 0
        for name, shape, kind in tensors[part * share : (part + 1) * share]:
            rows.append(tensor(name, shape, kind, at))
            dummy, block, size = TENSOR_TYPES[kind]
            at += -(-(prod(shape) // block * size) // 32) * 32
        split = [key("split.no", "u16", part), key("split.count", "u16", parts)] if parts > 1 else []
        split += [key("split.tensors.count", "i32", len(tensors))] if parts > 1 else []
        head = padded(header([*(about if part == 0 else []), *split], rows))
        file = f"{stem}-{part + 1:05d}-of-{parts:05d}.gguf" if parts > 1 else path
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(head)
            out.truncate(len(head) + at)


def main(folder: str) -> None:
    flash = deepseek2(
        layers=47, width=2048, heads=20, feed_forward=10240, experts=64, query=768, nope=192, value=256,
        words=154880, types=(Q4_K, Q5_K), latent=True,
    )  # fmt: skip
    write(
        f"{folder}/GLM-4.7-Flash-UD-Q4_K_XL.gguf",
        1,
        keys(
            "deepseek2", "GLM-4.7-Flash", 154880, block_count=47, context_length=202752, embedding_length=2048,
            feed_forward_length=10240, attention__head_count=20, attention__head_count_kv=1,
            attention__key_length=576, attention__value_length=512, attention__key_length_mla=256,
            attention__value_length_mla=256, attention__q_lora_rank=768, attention__kv_lora_rank=512,
            rope__dimension_count=64, attention__layer_norm_rms_epsilon=1e-5, expert_count=64, expert_used_count=4,
            expert_shared_count=1, expert_feed_forward_length=1536, leading_dense_block_count=1,
            expert_weights_scale=1.8, expert_weights_norm=True, expert_gating_func=2, rope__freq_base=1e6,
        ),
        list(flash),
    )  # fmt: skip
    large = glm4moe(layers=93, width=5120, heads=96, feed_forward=12288, experts=160, words=151552, types=(Q2_K, Q3_K))
    write(
        f"{folder}/GLM-4.7-GGUF/UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL.gguf",
        3,
        keys(
            "glm4moe", "GLM-4.7", 151552, block_count=93, context_length=202752, embedding_length=5120,
            feed_forward_length=12288, attention__head_count=96, attention__head_count_kv=8,
            attention__key_length=128, attention__value_length=128, rope__dimension_count=64,
            attention__layer_norm_rms_epsilon=1e-5, expert_count=160, expert_used_count=8, expert_shared_count=1,
            expert_feed_forward_length=1536, leading_dense_block_count=3, nextn_predict_layers=1,
            expert_weights_scale=2.5, expert_weights_norm=True, expert_gating_func=2, rope__freq_base=1e6,
        ),
        list(large),
    )  # fmt: skip
    old = deepseek2(
        layers=60, width=5120, heads=128, feed_forward=12288, experts=160, query=1536, nope=128, value=128,
        words=102400, types=(Q6_K, Q6_K), latent=False,
    )  # fmt: skip
    write(
        f"{folder}/DeepSeek-V2.5-GGUF/Q6_K/DeepSeek-V2.5-Q6_K.gguf",
        5,
        keys(
            "deepseek2", "DeepSeek V2.5", 102400, block_count=60, context_length=163840, embedding_length=5120,
            feed_forward_length=12288, attention__head_count=128, attention__head_count_kv=128,
            attention__key_length=192, attention__value_length=128, attention__q_lora_rank=1536,
            attention__kv_lora_rank=512, rope__dimension_count=64, attention__layer_norm_rms_epsilon=1e-6,
            expert_count=160, expert_used_count=6, expert_shared_count=2, expert_feed_forward_length=1536,
            leading_dense_block_count=1, expert_weights_scale=16.0,
        ),
        list(old),
    )  # fmt: skip


def remember(folder: str) -> None:
    """Write a record for each file. It is valid because the file did not change for 2 s."""
    time.sleep(2.5)
    for path in map(str, Path(folder).rglob("*.gguf")):
        parts = split_paths(path)
        summary = gguf_summary([read(part) for part in parts]) if path == parts[0] else {}
        record(path, MODEL_RECORDS, "0" * 64, {}, {"reader": READER, "summary": summary})


if __name__ == "__main__":
    main(sys.argv[1])
    remember(sys.argv[1])
