# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance's record says about its server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ARGUMENTS, MODEL
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED


def record(**more: Any) -> dict[str, Any]:
    return {
        "spec": {"image": "/home/x.sif", "gpus": ["0"]},
        "launch": {"argv": ["apptainer", "exec", "--bind", "/m:/models", "/home/x.sif", "llama-server", *ARGUMENTS]},
        "image": {"build": "11669"},
        "model": MODEL,
        "release": None,
        **more,
    }


def test_a_record() -> None:
    assert expectation.of_record(record(), Gate("health")) == replace(EXPECTED, gpus=True, gate=Gate("health"))


def test_a_record_with_a_release() -> None:
    release = {"proven": "2026", "completion": {"tokens_per_second": 20.5}}
    found = expectation.of_record(record(release=release), Gate())
    assert (found.last_rate, found.last_proven) == (20.5, "2026")
    assert expectation.of_record(record(release={"proven": "2026", "completion": None}), Gate()).last_rate is None


def test_a_record_with_missing_values() -> None:
    found = expectation.of_record(record(image=None, model=None, spec={"image": "/other.sif"}), Gate())
    assert found == Expectation(gate=Gate())


def test_the_reply_timeout_grows_with_the_model() -> None:
    assert EXPECTED.reply_timeout == 300
    assert Expectation().reply_timeout == 300
    assert replace(EXPECTED, model={"size": 193_000_000_000}).reply_timeout > 2900
