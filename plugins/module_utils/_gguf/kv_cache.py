# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The size of a model's KV cache, from its GGUF metadata. Pure.

Private to gpufleet.llamacpp; may change at any time.

Follows llama.cpp: llama-kv-cache.cpp (the cells and their rows), llama-kv-cache-iswa.cpp (sliding windows) and
llama-hparams.cpp (the kind of each layer). The state of a recurrent layer does not grow with the context and is not
counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .types import is_integer

# Cache type -> (bytes, elements) of a block; the values of --cache-type-k and --cache-type-v.
CACHE_TYPES: dict[str, tuple[int, int]] = {
    "f32": (4, 1),
    "f16": (2, 1),
    "bf16": (2, 1),
    "q8_0": (34, 32),
    "q4_0": (18, 32),
    "q4_1": (20, 32),
    "iq4_nl": (18, 32),
    "q5_0": (22, 32),
    "q5_1": (24, 32),
}
# llama.cpp rounds the number of cells up to a multiple of this.
CELLS = 256

# Architecture -> (period, first): of each ``period`` layers one sees the whole context, the first or the last of them.
# For files without attention.sliding_window_pattern; from the set_swa_pattern calls of llama.cpp.
# For other architectures every layer is counted as if it saw the whole context, which is an upper bound.
WINDOW_PATTERNS: dict[str, tuple[int, bool]] = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "llama4": (4, False),
    "olmo2": (4, False),
    "smallthinker": (4, True),
}
# Windows that llama.cpp assumes for files without one.
DEFAULT_WINDOWS = {"gemma2": 4096, "llama4": 8192}
# Architectures with recurrent layers -> one of so many layers has a KV cache, for files without the key.
DEFAULT_ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
# Far above any model: limits the time that a damaged layer count can cost.
MAX_LAYERS = 4096


@dataclass(frozen=True)
class KvCache:
    """Elements of K and V that one cell holds, summed over the layers; ``window`` in tokens, 0 where there is none."""

    k: int
    v: int
    window: int = 0
    window_k: int = 0
    window_v: int = 0

    def bytes_per_token(self, type_k: str = "f16", type_v: str = "f16") -> int:
        """Bytes for each token of context, in the layers that see all of it."""
        return _bytes(self.k, type_k) + _bytes(self.v, type_v)

    def window_bytes_per_token(self, type_k: str = "f16", type_v: str = "f16") -> int:
        """Bytes for each token in the window, in the layers that see only that."""
        return _bytes(self.window_k, type_k) + _bytes(self.window_v, type_v)

    def total(
        self, context: int, type_k: str = "f16", type_v: str = "f16", sequences: int = 1, micro_batch: int = 512
    ) -> int:
        """Bytes of the whole cache for ``-c context``, with ``sequences`` slots in one unified cache and ``-ub``."""
        cells = _padded(context)
        window_cells = min(cells, _padded(self.window * sequences + micro_batch))
        return cells * self.bytes_per_token(type_k, type_v) + window_cells * self.window_bytes_per_token(type_k, type_v)


def kv_cache(metadata: dict[str, Any]) -> KvCache | None:
    """The cache of the model with this metadata; None if it has no keys for one (not a language model)."""
    model = _Model(metadata)
    layers = model.number("block_count") - model.number("nextn_predict_layers")
    heads = model.number("attention.head_count")
    if not 0 < layers <= MAX_LAYERS:
        return None
    default_length = model.number("embedding_length") // heads if heads else 0
    key = model.number("attention.key_length", default_length)
    value = model.number("attention.value_length", default_length)
    if not key and not model.is_recurrent():
        return None
    # Multi-head latent attention stores one compressed row, which is used as K and as V.
    latent = model.has("attention.key_length_mla") and model.has("attention.value_length_mla")
    window_key = model.number("attention.key_length_swa", key)
    window_value = model.number("attention.value_length_swa", value)
    window, windowed = model.windows(layers)
    k = v = window_k = window_v = 0
    for layer in range(layers):
        kv_heads = model.kv_heads(layer)
        if not model.has_cache(layer, layers):
            continue
        if windowed[layer]:
            window_k += kv_heads * window_key
            window_v += 0 if latent else kv_heads * window_value
        else:
            k += kv_heads * key
            v += 0 if latent else kv_heads * value
    return KvCache(k, v, window if any(windowed) else 0, window_k, window_v)


class _Model:
    """The metadata under the architecture's prefix. A value of the wrong type counts as missing."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self.architecture = metadata.get("general.architecture")

    def value(self, key: str) -> Any:
        return self.metadata.get(f"{self.architecture}.{key}")

    def has(self, key: str) -> bool:
        return self.value(key) is not None

    def number(self, key: str, default: int = 0) -> int:
        """A number; of a number for each layer, the largest."""
        value = self.value(key)
        if isinstance(value, tuple) and value and all(is_integer(item) for item in value):
            value = max(value)
        return value if is_integer(value) and value >= 0 else default

    def kv_heads(self, layer: int) -> int:
        """Heads of K and V in a layer. The file has one number for all layers, or one for each."""
        value = self.value("attention.head_count_kv")
        if value is None:  # plain multi-head attention
            value = self.value("attention.head_count")
        if isinstance(value, tuple):
            value = value[layer] if layer < len(value) else 0
        return value if is_integer(value) and value >= 0 else 0

    def is_recurrent(self) -> bool:
        return self.has("ssm.state_size") or self.has("wkv.head_size")

    def has_cache(self, layer: int, layers: int) -> bool:
        """False for a recurrent layer, and for one that shares the cache of an earlier layer."""
        interval = self.number("full_attention_interval", DEFAULT_ATTENTION_INTERVALS.get(str(self.architecture), 0))
        if interval and (layer + 1) % interval:
            return False
        # For gemma3n the number is built into llama.cpp (n_layer_kv_from_start).
        own = 20 if self.architecture == "gemma3n" else layers - self.number("attention.shared_kv_layers")
        return layer < own

    def windows(self, layers: int) -> tuple[int, list[bool]]:
        """The sliding window in tokens, and for each layer whether it has it."""
        everywhere = [False] * layers
        window = self.number("attention.sliding_window", DEFAULT_WINDOWS.get(str(self.architecture), 0))
        if not window:
            return 0, everywhere
        pattern = self.value("attention.sliding_window_pattern")
        if isinstance(pattern, tuple) and pattern:
            return window, [bool(pattern[layer % len(pattern)]) for layer in range(layers)]
        period, full_first = WINDOW_PATTERNS.get(str(self.architecture), (1, False))
        if is_integer(pattern):
            period = pattern
        if period < 1:
            return window, [True] * layers
        full = 0 if full_first else period - 1
        return window, [layer % period != full for layer in range(layers)]


def _bytes(elements: int, cache_type: str) -> int:
    size, block = CACHE_TYPES[cache_type]
    return elements * size // block


def _padded(cells: int) -> int:
    return -(-cells // CELLS) * CELLS
