# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance's record says about its server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import (
    ImageFacts,
    ModelFacts,
    Record,
    Release,
)
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ARGUMENTS, MODEL
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record, a_spec, with_launch, with_setup


def record(release: Release | None = None, **setup: Any) -> Record:
    facts = {"image": ImageFacts("/home/x.sif", build="11669"), "model": ModelFacts.from_json(MODEL)}
    launched = with_launch(a_record(gpus=["0"]), arguments=tuple(ARGUMENTS))
    return replace(with_setup(launched, **{**facts, **setup}), release=release)


def test_a_record() -> None:
    found = expectation.of_record(record(), Gate("health"))
    assert {key: found.model[key] for key in MODEL} == dict(MODEL)
    assert replace(found, model=MODEL) == replace(EXPECTED, gpus=True, gate=Gate("health"))


def test_a_record_with_a_release() -> None:
    release = Release("2026", 1.0, {"tokens_per_second": 20.5}, None, a_record().setup)
    found = expectation.of_record(record(release=release), Gate())
    assert (found.last_rate, found.last_proven) == (20.5, "2026")
    assert expectation.of_record(record(release=replace(release, completion={})), Gate()).last_rate is None


def test_a_record_with_missing_values() -> None:
    found = expectation.of_record(record(image=None, model=None, spec=a_spec(gpus=[])), Gate())
    assert found == Expectation(arguments=tuple(ARGUMENTS), gate=Gate())


def test_the_reply_timeout_grows_with_the_model() -> None:
    assert EXPECTED.reply_timeout == 300
    assert Expectation().reply_timeout == 300
    assert replace(EXPECTED, model={"size": 193_000_000_000}).reply_timeout > 2900
