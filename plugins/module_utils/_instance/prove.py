# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proving a started instance, recording the release, and the way back where the proof fails.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import evidence, proof, wait
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runner
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.files import read_json
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import apply, observe, record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.observe import Place

# Seconds for one look at /health; llama-server answers it from threads of their own.
HEALTH_TIMEOUT = 5.0
LOG_LINES = 200


class GateFailed(Exception):
    """The instance does not work; the message says why and what was done about it."""


def state(place: Place) -> Mapping[str, Any] | None:
    """The runner's account, also of a server that has ended."""
    try:
        return read_json(place.state_file)
    except (ValueError, OSError):
        return None


def gate(place: Place, value: Mapping[str, Any], timeout: int | None) -> dict[str, Any]:
    """Wait until the launch in ``value`` is ready and prove it; returns the release. Raises GateFailed."""
    launch = value["launch"]
    limit = timeout or wait.default_timeout((value["model"] or {}).get("size"))
    outcome = wait.until_ready(
        lambda: state(place), lambda: runner.health(launch["url"], HEALTH_TIMEOUT), launch["id"], limit
    )
    if not outcome.ready:
        lines = place.manager.log_lines(observe.unit(place, value["spec"]), LOG_LINES)
        raise GateFailed(evidence.explain(outcome.reason, evidence.this_start(lines, f"starting {launch['id']}")))
    try:
        answer = proof.prove(launch["url"], runner.read_key(launch["api_key_file"]), value["model"] or {})
    except proof.NotProven as error:
        raise GateFailed(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    return {
        "proven": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "ready_seconds": round(outcome.seconds, 1),
        "completion": answer,
        "spec": value["spec"],
        "manager": value["manager"],
        "launch": launch,
        "image": value["image"],
        "model": value["model"],
    }


def prove(place: Place, value: dict[str, Any], timeout: int | None) -> dict[str, Any]:
    """Pass the gate and record the release; returns the record with it. Where it fails, the last release comes back.

    Raises GateFailed.
    """
    try:
        release = gate(place, value, timeout)
    except GateFailed as failure:
        raise GateFailed(f"{failure}\n{way_back(place, value, timeout)}") from failure
    former = value["release"]
    if former and former["launch"]["id"] != release["launch"]["id"]:
        record.keep_release(place.folder, former, apply.RECORD_MODE)
    done = {**value, "release": release}
    apply.write_record(place, done)
    return done


def way_back(place: Place, value: Mapping[str, Any], timeout: int | None) -> str:
    """After a failed gate: run the last release again, or nothing where there is none. Says what became of it."""
    release = value["release"]
    unit = observe.unit(place, value["spec"])
    place.manager.stop(unit)
    if not release or release["launch"]["id"] == value["launch"]["id"] or release["manager"] != value["manager"]:
        return "The instance is stopped: there is no earlier release to go back to."
    begin = time.monotonic()
    former = {**value, **{key: release[key] for key in ("spec", "launch", "image", "model")}}
    apply.write_record(place, former)
    place.manager.install(observe.unit(place, former["spec"]))
    place.manager.start(observe.unit(place, former["spec"]))
    try:
        gate(place, former, timeout)
    except GateFailed as failure:
        return f"The release of {release['proven']} was started again, and does not work either: {failure}"
    return f"Back on the release of {release['proven']}, serving again after {time.monotonic() - begin:.0f} s."
