# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimate the memory that a model takes on each GPU, from its GGUF header alone.

Private to gpufleet.llamacpp; may change at any time.

It is used where the image has no llama-fit-params. The placement of layers follows llama.cpp (llama-model.cpp,
load_tensors); the memory for computation is a rule of thumb.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from ..._gguf.file import Gguf
from ..._gguf.header import Array
from ..._gguf.kv_cache import CACHE_TYPES, kv_cache
from ..._gguf.types import is_integer
from .fit_params import HOST, Device
from .options import MemoryOptions

MIB = 1 << 20
# Added to an estimate before it is compared with anything.
MARGIN = 0.15
# Scratch memory of a device that computes, without the logits.
SCRATCH = 256 * MIB
LAYER = re.compile(r"blk\.(\d+)\.")
EXPERTS = re.compile(r"_(?:ch)?exps\.")


def estimate(parts: Sequence[Gguf], options: MemoryOptions, free: Sequence[int]) -> tuple[Device, ...]:
    """One Device for each of the GPUs, whose free memory in bytes is ``free``, and Host last."""
    metadata = parts[0].metadata
    architecture = metadata.get("general.architecture")
    layers = _number(metadata.get(f"{architecture}.block_count"))
    homes = _homes(layers, options, free)
    host = len(free)
    model, context, compute = [0] * (host + 1), [0] * (host + 1), [0] * (host + 1)
    embedding, has_output = 0, False
    for tensor in (tensor for part in parts for tensor in part.tensors):
        match = LAYER.match(tensor.name)
        if match:
            layer = int(match[1])
            on_host = layer < options.expert_layers and EXPERTS.search(tensor.name)
            model[host if on_host else homes[min(layer, layers)]] += tensor.size
        elif tensor.name.startswith("token_embd."):
            # The token table stays on the host.
            embedding += tensor.size
            model[host] += tensor.size
        else:
            has_output = has_output or tensor.name.startswith("output.")
            model[homes[layers]] += tensor.size
    if not has_output and homes[layers] != host:
        # The token table is also the output matrix, so it is loaded twice.
        model[homes[layers]] += embedding
    for layer in range(layers):
        context[homes[layer] if options.cache_on_gpu else host] += _cache(parts, options) // layers
    vocabulary = metadata.get("tokenizer.ggml.tokens")
    words = vocabulary.items if isinstance(vocabulary, Array) else len(vocabulary or ())
    for home in {*homes, host}:
        compute[home] = SCRATCH if home != host or host == 0 else SCRATCH // 4
    compute[homes[layers]] += options.micro_batch * words * 4
    names = [f"GPU{place}" for place in range(host)] + [HOST]
    return tuple(Device(*row) for row in zip(names, model, context, compute))


def _cache(parts: Sequence[Gguf], options: MemoryOptions) -> int:
    metadata = parts[0].metadata
    cache = kv_cache(metadata)
    if cache is None:
        return 0
    trained = _number(metadata.get(f"{metadata.get('general.architecture')}.context_length"))
    types = [name if name in CACHE_TYPES else "f16" for name in (options.type_k, options.type_v)]
    return cache.total(options.context or trained, types[0], types[1], options.slots, options.micro_batch)


def _homes(layers: int, options: MemoryOptions, free: Sequence[int]) -> list[int]:
    """The device of each layer, as an index of ``free``, and of the output after them; len(free) is the host."""
    host, units = len(free), layers + 1
    wanted = units if options.layers is None else min(options.layers, units)
    if not free or wanted <= 0:
        return [host] * units
    weights = _weights(options, free)
    edges = [edge / sum(weights) for edge in accumulate(weights)]
    first = units - wanted
    # Rounding can put a layer beyond the last edge: it belongs to the last device that has a share.
    last = max(place for place, weight in enumerate(weights) if weight > 0)
    placed = [min(bisect_right(edges, (unit - first) / wanted), last) for unit in range(first, units)]
    return [host] * first + placed


def _weights(options: MemoryOptions, free: Sequence[int]) -> list[float]:
    """The share of each GPU: that of -ts, or else in proportion to the free memory."""
    if options.split_mode == "none":
        chosen = options.main_gpu if options.main_gpu < len(free) else 0
        return [float(place == chosen) for place in range(len(free))]
    given = [*options.split, *([0.0] * len(free))][: len(free)]
    shares = given if any(given) else [float(size) for size in free]
    return shares if any(share > 0 for share in shares) else [1.0] * len(free)


def _number(value: object) -> int:
    return value if is_integer(value) and isinstance(value, int) and value > 0 else 0
