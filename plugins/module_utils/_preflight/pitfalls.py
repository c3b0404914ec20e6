# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a spec means: settings that llama-server accepts, and that do something else than they seem to. Pure.

Private to gpufleet.llamacpp; may change at any time. Rules: llama.cpp common/fit.cpp, tools/server/server-context.cpp,
llama-kv-cache.cpp, and models/deepseek2.cpp for the old files without latent attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._gguf.kv_cache import CACHE_TYPES, KvCache, kv_cache
from .._gguf.types import is_integer
from .._llama.argv import flag, value_of
from .._llama.memory import options as memory_options
from .._llama.memory.options import MemoryOptions
from .._llama.options import OFF, ON
from .._spec.spec import Spec

GIB = 1 << 30
LOOPBACK = ("127.", "::1", "[::1]", "localhost")
ROPE = ("--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale", "--yarn-orig-ctx")
# Files of this architecture that were made before April 2025 keep every head's K and V; newer ones one latent row.
LATENT = ("deepseek2",)
# A cache below this is not worth a word, in bytes.
LARGE_CACHE = 16 * GIB


def check(spec: Spec, words: Sequence[str], metadata: Mapping[str, Any] | None) -> tuple[list[str], list[str]]:
    """Problems and warnings. ``words``: llama-server's arguments; ``metadata``: of the model's first file, where it is
    there.
    """
    env = dict(spec.env)
    options = memory_options.parse(words, env)
    problems: list[str] = []
    warnings = [*_exposed(spec), *_fit(options, words, env)]
    trained = _trained(metadata)
    if metadata is not None:
        problems += _latent_types(metadata, options)
        warnings += _beyond(options, words, trained) + _old_file(metadata, options, trained)
    warnings += _slots(options, words, env, trained)
    return problems, warnings


def _exposed(spec: Spec) -> list[str]:
    if spec.api_key_file or spec.host.startswith(LOOPBACK):
        return []
    return [
        f"host: {spec.host} without api_key_file: whoever reaches port {spec.port} can use the model. Name a file "
        "with keys, or let a firewall decide who reaches it."
    ]


def _fit(options: MemoryOptions, words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """--fit is on anyway; the warning is for who says it and counts on it."""
    said = value_of(words, "-fit", "--fit") or env.get("LLAMA_ARG_FIT")
    if said not in ON or options.layers is None:
        return []
    layers = "all" if options.layers == 9999 else options.layers
    return [
        f"args: with gpu_layers {layers}, --fit on only warns where the model does not fit, and loading goes on. "
        "gpu_layers: auto lets it choose."
    ]


def _trained(metadata: Mapping[str, Any] | None) -> int | None:
    """The length in tokens that the model was trained with."""
    length = (metadata or {}).get(f"{(metadata or {}).get('general.architecture')}.context_length")
    return int(length) if is_integer(length) and length else None


def _beyond(options: MemoryOptions, words: Sequence[str], trained: int | None) -> list[str]:
    stretched = any(value_of(words, name) for name in ROPE)
    if trained is None or options.context <= trained or stretched:
        return []
    return [
        f"context_size: {options.context} is more than the {trained} tokens that the model was trained with. No "
        f"request gets more than {trained}; the rest only takes memory, or serves several requests at once."
    ]


def _slots(options: MemoryOptions, words: Sequence[str], env: Mapping[str, str], trained: int | None) -> list[str]:
    """An explicit number of slots divides the context among them; llama-server's own choice lets them share it."""
    said = value_of(words, *memory_options.PARALLEL) or env.get("LLAMA_ARG_N_PARALLEL")
    context = options.context or trained
    unified = flag(words, ("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified"))
    if unified is None:
        unified = env.get("LLAMA_ARG_KV_UNIFIED", OFF[0]) in ON
    if not said or not said.lstrip("+").isdigit() or options.slots < 2 or unified or not context:
        return []
    return [
        f"args: --parallel {options.slots} divides the context: {context} tokens are {context // options.slots} for "
        "each request. Add --kv-unified to let them share it, or raise context_size."
    ]


def _latent_types(metadata: Mapping[str, Any], options: MemoryOptions) -> list[str]:
    """Multi-head latent attention keeps one row that serves as K and as V, which so have one type."""
    architecture = metadata.get("general.architecture")
    latent = all(f"{architecture}.attention.{key}_length_mla" in metadata for key in ("key", "value"))
    if not latent or options.type_k == options.type_v:
        return []
    return [
        f"args: this model keeps K and V in one row (architecture {architecture}), and llama-server does not start "
        f"with --cache-type-k {options.type_k} and --cache-type-v {options.type_v}. Give both the same type."
    ]


def _old_file(metadata: Mapping[str, Any], options: MemoryOptions, trained: int | None) -> list[str]:
    """A DeepSeek file from before latent attention, whose cache takes many times what a newer one takes."""
    architecture = metadata.get("general.architecture")
    old = architecture in LATENT and f"{architecture}.attention.key_length_mla" not in metadata
    cache = kv_cache(dict(metadata)) if old else None
    context = options.context or trained or 0
    size = cache_bytes(cache, options, context) if cache else 0
    if size < LARGE_CACHE:
        return []
    return [
        f"model: this file was made before llama.cpp had latent attention for {architecture}, so that {context} tokens "
        f"take {size / GIB:.0f} GiB beside the weights. A file made since April 2025 takes a small part of that; or "
        "lower context_size."
    ]


def cache_bytes(cache: KvCache, options: MemoryOptions, context: int) -> int:
    """What the cache takes, in bytes, with types that llama-server does not know counted as its default."""
    types = [name if name in CACHE_TYPES else "f16" for name in (options.type_k, options.type_v)]
    return cache.total(context, types[0], types[1], options.slots, options.micro_batch)
