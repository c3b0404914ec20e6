# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that do something else than they seem to, with the metadata that the models have."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import pitfalls
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import launch
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import SERVER, a_spec


def model(architecture: str, **keys: Any) -> dict[str, Any]:
    return {"general.architecture": architecture, **{f"{architecture}.{key}": value for key, value in keys.items()}}


def attention(**keys: int) -> dict[str, Any]:
    return {f"attention.{key}": value for key, value in keys.items()}


FLASH = model(
    "deepseek2",
    block_count=47,
    context_length=202752,
    **attention(head_count=20, head_count_kv=1, key_length=576, value_length=512),
    **attention(key_length_mla=256, value_length_mla=256),
)
# DeepSeek-V2.5 as it was converted in 2024.
OLD = model(
    "deepseek2",
    block_count=60,
    context_length=163840,
    **attention(head_count=128, head_count_kv=128, key_length=192, value_length=128),
)
LLAMA = model("llama", block_count=30, context_length=8192, embedding_length=576, **attention(head_count=9))


def check(metadata: dict[str, Any] | None = None, **changes: Any) -> tuple[list[Problem], list[str]]:
    options: dict[str, Any] = {"host": "127.0.0.1", "args": [], "gpu_layers": None, "context_size": 4096, **changes}
    spec = a_spec(**options)
    return pitfalls.check_pitfalls(spec, launch.server_argv(spec, SERVER)[1:], metadata)


def warnings(metadata: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    problems, found = check(metadata, **changes)
    assert problems == []
    return found


@pytest.mark.parametrize("metadata", [None, {}, LLAMA, FLASH], ids=["none", "empty", "llama", "flash"])
def test_a_plain_spec(metadata: dict[str, Any] | None) -> None:
    assert check(metadata) == ([], [])


def test_the_seed_gets_two_short_warnings() -> None:
    spec = a_spec()
    problems, found = pitfalls.check_pitfalls(spec, launch.server_argv(spec, SERVER)[1:], FLASH)
    assert problems == []
    assert found == [
        "host: 0.0.0.0 without api_key_file: anyone who can reach port 4403 can use the model. Set api_key_file, or "
        "restrict access with a firewall.",
        "args: with gpu_layers 99, --fit on only warns if the model does not fit, and loading continues. Set "
        "gpu_layers to auto to let llama-server choose.",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.0.2.7", "gpu-1.example.org"])
def test_a_door_without_a_lock(host: str) -> None:
    (warning,) = warnings(host=host)
    assert warning.startswith(f"host: {host} without api_key_file: anyone who can reach port 4403")
    assert warnings(host=host, api_key_file="/etc/keys") == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_a_door_that_is_inside(host: str) -> None:
    assert warnings(host=host) == []


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({"args": ["--fit on"], "gpu_layers": "99"}, "gpu_layers 99"),
        ({"args": ["-fit 1"], "gpu_layers": "all"}, "gpu_layers all"),
        ({"env": {"LLAMA_ARG_FIT": "on"}, "gpu_layers": "1"}, "gpu_layers 1,"),
        ({"args": ["--fit on"], "gpu_layers": "auto"}, None),
        ({"args": ["--fit on"]}, None),
        ({"args": ["--fit off"], "gpu_layers": "99"}, None),
        ({"gpu_layers": "99"}, None),
    ],
    ids=str,
)
def test_fit_that_can_change_nothing(changes: dict[str, Any], warns: str | None) -> None:
    found = warnings(**changes)
    assert len(found) == (warns is not None)
    assert all(str(warns) in warning for warning in found)


def test_a_context_beyond_the_training() -> None:
    (warning,) = warnings(LLAMA, context_size=8193)
    assert warning.startswith("context_size: 8193 is more than the 8192 tokens")
    assert warnings(LLAMA, context_size=8192) == []
    assert warnings(LLAMA, context_size=16384, args=["--rope-scaling yarn"]) == []
    assert warnings(None, context_size=8193) == []


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({"args": ["--parallel 4"]}, 1024),
        ({"parallel": 4}, 1024),
        ({"args": ["-np 3", "--no-kv-unified"]}, 1365),
        ({"env": {"LLAMA_ARG_N_PARALLEL": "2"}}, 2048),
        ({"args": ["-np 2"], "context_size": 0}, 4096),
        ({"args": ["--parallel 4", "-kvu"]}, None),
        ({"args": ["--parallel 4"], "env": {"LLAMA_ARG_KV_UNIFIED": "1"}}, None),
        ({"args": ["--parallel 1"]}, None),
        ({"args": ["--parallel -1"]}, None),
        ({}, None),
    ],
    ids=str,
)
def test_slots_that_divide_the_context(changes: dict[str, Any], each: int | None) -> None:
    found = warnings(LLAMA, **changes)
    assert len(found) == (each is not None)
    assert all(f"each request gets {each} of " in warning and "Add --kv-unified" in warning for warning in found)
    option = "parallel" if "parallel" in changes else "args"
    assert all(warning.startswith(f"{option}: ") for warning in found)


def test_cache_types_of_a_model_with_one_row_for_both() -> None:
    (problem,) = check(FLASH, args=["--cache-type-k q8_0"])[0]
    assert "--cache-type-k q8_0 and --cache-type-v f16. Give both the same type." in str(problem)
    assert check(FLASH, args=["-ctk q8_0", "-ctv q8_0"]) == ([], [])
    assert check(LLAMA, args=["--cache-type-k q8_0"]) == ([], [])


def test_an_old_file_whose_cache_is_larger_than_its_weights() -> None:
    (warning,) = warnings(OLD, context_size=65536)
    assert "65536 tokens take 300 GiB in addition to the weights." in warning
    assert "take 38 GiB" in warnings(OLD, context_size=8192)[0]
    assert "take 20 GiB" in warnings(OLD, context_size=8192, args=["-ctk q8_0", "-ctv q8_0"])[0]
    assert warnings(OLD, context_size=2048) == []
    assert warnings(FLASH, context_size=65536) == []
