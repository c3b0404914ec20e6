# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of llama-server that decide how much memory it takes, and on which device. Pure.

Private to gpufleet.llamacpp; may change at any time. Names and defaults: llama.cpp common/arg.cpp and common/common.h.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..argv import flag, number, value_of
from ..options import ON

# Slots that llama-server makes by default (tools/server/server.cpp).
AUTO_SLOTS = 4
# MiB of host memory for the prompts of earlier requests, by default.
CACHE_RAM = 8192
PARALLEL = ("-np", "--parallel")


@dataclass(frozen=True)
class MemoryOptions:
    """The arguments, as numbers. context 0: the model's own; layers None: llama-server chooses, ``all`` is 9999.

    cache_ram in MiB, -1 for no limit. expert_layers: the number of layers, from the first, whose experts stay on the
    CPU.
    """

    context: int
    context_is_set: bool
    slots: int
    micro_batch: int
    layers: int | None
    fits: bool
    split: tuple[float, ...]
    split_mode: str
    main_gpu: int
    type_k: str
    type_v: str
    cache_on_gpu: bool
    expert_layers: int
    overrides: bool
    cache_ram: int
    in_page_cache: bool
    projector: str | None  # path inside the container
    projector_on_gpu: bool
    draft: str | None  # path inside the container

    @property
    def adapts(self) -> bool:
        """Whether llama-server uses fewer layers or a smaller context where the memory is short."""
        return self.fits and (self.layers is None or not self.context_is_set)


def parse(arguments: Sequence[str], env: Mapping[str, str]) -> MemoryOptions:
    """Read the options in llama-server's arguments, or else in its environment."""

    def text(variable: str, *names: str) -> str | None:
        return value_of(arguments, *names) or env.get(f"LLAMA_ARG_{variable}")

    def count(default: int, variable: str, *names: str) -> int:
        found = number(text(variable, *names))
        return default if found is None else found

    layers = text("N_GPU_LAYERS", "-ngl", "--gpu-layers", "--n-gpu-layers")
    slots = count(-1, "N_PARALLEL", *PARALLEL)
    mode = text("LOAD_MODE", "-lm", "--load-mode")
    pinned = flag(arguments, ("--mlock", "--no-mmap", "-dio", "--direct-io"))
    cpu_moe = flag(arguments, ("-cmoe", "--cpu-moe"))
    return MemoryOptions(
        context=count(0, "CTX_SIZE", "-c", "--ctx-size"),
        context_is_set=text("CTX_SIZE", "-c", "--ctx-size") is not None,
        slots=slots if slots > 0 else AUTO_SLOTS,
        micro_batch=count(512, "UBATCH", "-ub", "--ubatch-size"),
        layers=9999 if layers == "all" else number(layers),
        fits=(text("FIT", "-fit", "--fit") or "on") in ON,
        split=_split(text("TENSOR_SPLIT", "-ts", "--tensor-split")),
        split_mode=text("SPLIT_MODE", "-sm", "--split-mode") or "layer",
        main_gpu=count(0, "MAIN_GPU", "-mg", "--main-gpu"),
        type_k=text("CACHE_TYPE_K", "-ctk", "--cache-type-k") or "f16",
        type_v=text("CACHE_TYPE_V", "-ctv", "--cache-type-v") or "f16",
        cache_on_gpu=flag(arguments, ("-kvo", "--kv-offload"), ("-nkvo", "--no-kv-offload")) is not False,
        expert_layers=9999 if cpu_moe else count(0, "N_CPU_MOE", "-ncmoe", "--n-cpu-moe"),
        overrides=bool(text("OVERRIDE_TENSOR", "-ot", "--override-tensor")),
        cache_ram=count(CACHE_RAM, "CACHE_RAM", "-cram", "--cache-ram"),
        in_page_cache=not pinned and mode in (None, "auto", "mmap"),
        projector=text("MMPROJ", "-mm", "--mmproj"),
        projector_on_gpu=flag(arguments, ("--mmproj-offload",), ("--no-mmproj-offload",)) is not False,
        draft=text("SPEC_DRAFT_MODEL", "-md", "--model-draft", "--spec-draft-model"),
    )


def _split(text: str | None) -> tuple[float, ...]:
    """The proportions of -ts, separated by commas or slashes; empty where there are none."""
    try:
        return tuple(float(part) for part in (text or "").replace("/", ",").split(",") if part)
    except ValueError:
        return ()
