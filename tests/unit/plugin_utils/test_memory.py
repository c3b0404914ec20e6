# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of GPU memory: what each server needs, and what remains."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._memory import table

GIB = 1 << 30


def row(instance: str, gpu: int, need: float, left: float, free: float = 140, back: float = 0) -> dict[str, Any]:
    sizes = {"need": need, "left": left, "free": free, "given_back": back}
    return {"instance": instance, "gpu": gpu, **{key: int(size * GIB) for key, size in sizes.items()}}


def test_two_servers_on_two_gpus() -> None:
    rows = [row("4401-glm", 0, 38, 102), row("4401-glm", 1, 38.5, 101.5), row("4402-flash", 1, 6, 95.5)]
    assert table({"gpu1": rows, "gpu2": []}) == [
        "gpu1: GiB on GPU      0      1",
        "  4401-glm         38.0   38.5",
        "  4402-flash        0.0    6.0",
        "  free now        140.0  140.0",
        "  left            102.0   95.5",
    ]


def test_memory_that_others_reserve_and_that_a_stop_frees() -> None:
    """A server of 30 GiB replaces one of 10, next to one of 55 that does not run yet."""
    assert table({"gpu1": [row("a", 0, 30, 55, free=130, back=10)]}) == [
        "gpu1: GiB on GPU          0",
        "  a                    30.0",
        "  reserved by others   55.0",
        "  free now            130.0",
        "  freed by stops       10.0",
        "  left                 55.0",
    ]


def test_eight_gpus_fit_on_a_terminal() -> None:
    rows = [row("5001-deepseek-v2.5-gguf", gpu, 55, 85) for gpu in range(8)]
    assert max(map(len, table({"gpu1": rows}))) <= 85


def test_nothing_to_start() -> None:
    assert table({"gpu1": []}) == []
