# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that llama-server accepts, and whose effect is not what an operator expects. Pure.

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
from .._result import Problem
from .._spec.spec import Spec

GIB = 1 << 30
LOOPBACK = ("127.", "::1", "[::1]", "localhost")
ROPE = ("--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale", "--yarn-orig-ctx")
# Files of this architecture made before April 2025 keep K and V of every head; newer files keep one latent row.
LATENT = ("deepseek2",)
# Bytes. A smaller cache needs no warning.
LARGE_CACHE = 16 * GIB


def check_pitfalls(
    spec: Spec, words: Sequence[str], metadata: Mapping[str, Any] | None
) -> tuple[list[Problem], list[str]]:
    """Problems and warnings. ``words``: llama-server's arguments; ``metadata``: of the model's first file, if known."""
    env = dict(spec.env)
    options = memory_options.parse(words, env)
    problems: list[Problem] = []
    warnings = [*_exposed(spec), *_fit(options, words, env)]
    trained = _trained(metadata)
    if metadata is not None:
        problems += _latent_types(metadata, options)
        warnings += _beyond(options, words, trained) + _old_file(metadata, options, trained)
    warnings += _slots(spec, options, words, trained)
    return problems, warnings


def _exposed(spec: Spec) -> list[str]:
    if spec.api_key_file or spec.host.startswith(LOOPBACK):
        return []
    return [
        f"host: {spec.host} without api_key_file: anyone who can reach port {spec.port} can use the model. Set "
        "api_key_file, or restrict access with a firewall."
    ]


def _fit(options: MemoryOptions, words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """--fit is on by default; warn only if the operator set it explicitly."""
    value = value_of(words, "-fit", "--fit") or env.get("LLAMA_ARG_FIT")
    if value not in ON or options.layers is None:
        return []
    layers = "all" if options.layers == 9999 else options.layers
    return [
        f"args: with gpu_layers {layers}, --fit on only warns if the model does not fit, and loading continues. Set "
        "gpu_layers to auto to let llama-server choose."
    ]


def _trained(metadata: Mapping[str, Any] | None) -> int | None:
    """The context length that the model was trained with, in tokens."""
    length = (metadata or {}).get(f"{(metadata or {}).get('general.architecture')}.context_length")
    return int(length) if is_integer(length) and length else None


def _beyond(options: MemoryOptions, words: Sequence[str], trained: int | None) -> list[str]:
    stretched = any(value_of(words, name) for name in ROPE)
    if trained is None or options.context <= trained or stretched:
        return []
    return [
        f"context_size: {options.context} is more than the {trained} tokens that the model was trained with. No "
        f"request gets more than {trained}. The rest takes memory, and is of use only for parallel requests."
    ]


def _slots(spec: Spec, options: MemoryOptions, words: Sequence[str], trained: int | None) -> list[str]:
    """An explicit number of slots divides the context; llama-server's own default shares it."""
    env = dict(spec.env)
    value = value_of(words, *memory_options.PARALLEL) or env.get("LLAMA_ARG_N_PARALLEL")
    context = options.context or trained
    unified = flag(words, ("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified"))
    if unified is None:
        unified = env.get("LLAMA_ARG_KV_UNIFIED", OFF[0]) in ON
    if not value or not value.lstrip("+").isdigit() or options.slots < 2 or unified or not context:
        return []
    option = "args" if spec.value("parallel") is None else "parallel"
    each = context // options.slots
    return [
        f"{option}: {options.slots} slots divide the context: each request gets {each} of {context} tokens. Add "
        "--kv-unified to args to share the context, or raise context_size."
    ]


def _latent_types(metadata: Mapping[str, Any], options: MemoryOptions) -> list[Problem]:
    """Multi-head latent attention keeps K and V in one row, so both have the same type."""
    architecture = metadata.get("general.architecture")
    latent = all(f"{architecture}.attention.{key}_length_mla" in metadata for key in ("key", "value"))
    if not latent or options.type_k == options.type_v:
        return []
    text = (
        f"this model keeps K and V in one row (architecture {architecture}), and llama-server does not start with "
        f"--cache-type-k {options.type_k} and --cache-type-v {options.type_v}"
    )
    return [Problem("args", text, "Give both the same type.")]


def _old_file(metadata: Mapping[str, Any], options: MemoryOptions, trained: int | None) -> list[str]:
    """A DeepSeek file from before latent attention, whose cache is many times as large as a newer file's."""
    architecture = metadata.get("general.architecture")
    old = architecture in LATENT and f"{architecture}.attention.key_length_mla" not in metadata
    cache = kv_cache(dict(metadata)) if old else None
    context = options.context or trained or 0
    size = cache_bytes(cache, options, context) if cache else 0
    if size < LARGE_CACHE:
        return []
    return [
        f"model: this file was made before llama.cpp had latent attention for {architecture}, so {context} tokens "
        f"take {size / GIB:.0f} GiB in addition to the weights. Use a file made since April 2025, which takes a small "
        "part of that, or lower context_size."
    ]


def cache_bytes(cache: KvCache, options: MemoryOptions, context: int) -> int:
    """Bytes of the cache. Types that llama-server does not know are counted as its default."""
    types = [name if name in CACHE_TYPES else "f16" for name in (options.type_k, options.type_v)]
    return cache.total(context, types[0], types[1], options.slots, options.micro_batch)
