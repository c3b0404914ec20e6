# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The types of a record: nothing of instance.json is lost, and what an old one lacks has its default."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import FileFacts, ModelFacts, Record
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record, with_setup

STATES = Path(__file__).resolve().parents[3] / "molecule/upgrade/state"


def on_a_host(version: str) -> dict[str, Any]:
    """The instance.json that this version wrote, with values for what differs from host to host."""
    text = (STATES / version / "instance.json").read_text(encoding="utf-8")
    text = re.sub(r"<% stamps\.\w+ %>", "[1, 2, 3, 4]", text)
    value: dict[str, Any] = json.loads(re.sub(r"<% [^%]+ %>", "0", text))
    return value


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """The places where the second value does not have what the first one has."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [found for key in before for found in lost(before[key], after.get(key, "gone"), f"{path}/{key}")]
    return [] if before == after else [path]


@pytest.mark.parametrize("version", sorted(path.name for path in STATES.iterdir() if path.is_dir()))
def test_a_record_of_an_earlier_version_keeps_everything(version: str) -> None:
    value = on_a_host(version)
    record = Record.from_json(value)
    again = json.loads(json.dumps(record.to_json()))
    assert lost(value, again) == []
    assert Record.from_json(again) == record


def test_what_an_old_record_lacks_has_its_default() -> None:
    record = Record.from_json(on_a_host("2026-11-25"))
    assert record.spec.drain_timeout == 60
    assert record.launch.files == ()
    assert record.launch.gpus is None
    assert (record.gate, record.memory) == (None, None)


def test_a_launch_is_cut_behind_its_image() -> None:
    launch = a_record().launch
    assert [*launch.container, launch.server, *launch.arguments] == launch.argv
    assert launch.container[-1].endswith(".sif")
    assert launch.arguments[0] == "-m"


@pytest.mark.parametrize("release", [True, False])
def test_a_round_trip(release: bool) -> None:
    record = a_record(release=release, env={"A": "ü"}, alias="x", api_key_file="/keys")
    record = replace(record, gate={"level": "full"}, memory={"launch": "x"})
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_releases_and_stat_values_do_not_make_another_server() -> None:
    one = a_record()
    touched = ModelFacts("/m", files=(FileFacts("/m", (9, 9, 9, 9), None),))
    assert one.asks_the_same(a_record(release=True))
    assert one.asks_the_same(with_setup(one, model=touched))
    assert not one.asks_the_same(a_record(threads=1))
    assert not one.asks_the_same(a_record("systemd"))
    assert not one.asks_the_same(replace(one, gate={"level": "health"}))
