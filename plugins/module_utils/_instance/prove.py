# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One launch through the gate: waited for, proven, and explained where it does not pass.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .._gate import diagnosis, expectation, log_lines, options, proof, wait
from .._gate.checks import gpu_proof
from .._host import runner
from .._host.gpu import read as gpu
from .._preflight import gpus
from .._result import Problem
from . import observe, postmortem
from .observe import Place

# Seconds for one look at /health; llama-server answers it from threads of their own.
HEALTH_TIMEOUT = 5.0
LOG_LINES = 200
# What of a record is what runs, so that a release can be run again.
RUNS = ("spec", "manager", "launch", "image", "model")


class GateFailed(Exception):
    """The instance does not work; the message says why and what was done about it."""


def gate(place: Place, value: Mapping[str, Any], timeout: int | None, before: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until the launch in ``value`` is ready and prove it; returns the release. Raises GateFailed.

    How much is proven says the ``gate`` in ``value``. ``before`` is the runner's account from before the start, empty
    where nothing was started.
    """
    launch, began = value["launch"], time.time()
    unit = observe.unit(place, value["spec"])

    def given_up() -> str | None:
        state = place.manager.observe(unit)
        return None if state.active else state.detail

    outcome = wait.until_ready(
        lambda: observe.account(place),
        lambda: runner.health(launch["url"], HEALTH_TIMEOUT),
        given_up,
        launch["id"],
        timeout or wait.default_timeout((value["model"] or {}).get("size")),
        before,
    )
    if not outcome.ready:
        lines, host = _lines(place, value), postmortem.look(place, value, began)
        why = diagnosis.explain(outcome.reason, outcome.exit_status, lines, host)
        raise GateFailed(f"Failed at the start: {why}")
    expected = expectation.of_record(value, options.from_dict(value.get("gate")))
    on_gpus = _Gpus(value)
    try:
        answer = proof.run(launch["url"], runner.read_key(launch["api_key_file"]), expected, on_gpus.problems)
    except proof.NotProven as error:
        raise GateFailed(f"Failed at the proof: {_said(place, value, error.problems, began)}") from error
    return {
        "proven": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "ready_seconds": round(outcome.seconds, 1),
        "completion": answer,
        "gpus": on_gpus.rows,
        **{key: value[key] for key in RUNS},
    }


class _Gpus:
    """The look at the GPUs once the model has worked; ``rows`` is what was seen, None where nothing could be."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value = value
        self.rows: list[dict[str, Any]] | None = None

    def problems(self) -> Sequence[Problem]:
        """What is wrong with the use of the GPUs; nothing where none was asked for."""
        asked = self.value["launch"].get("gpus") or ()
        if not asked:
            return ()
        try:
            cards = gpu.read_gpus()
        except gpu.PynvmlMissing:
            return ()
        except gpu.NvmlUnavailable as error:
            return [Problem("", f"Whether the server uses its GPUs cannot be checked: {error}")]
        seen = gpu_proof.compare(self.value.get("memory"), asked, cards, gpus.pids_of(self.value))
        self.rows = list(seen.rows)
        return seen.problems


def _lines(place: Place, value: Mapping[str, Any]) -> list[str]:
    """The log since this launch was started."""
    lines = place.manager.log_lines(observe.unit(place, value["spec"]), LOG_LINES)
    return log_lines.this_start(lines, f"starting {value['launch']['id']}")


def _said(place: Place, value: Mapping[str, Any], problems: Sequence[Problem], began: float) -> str:
    """What was not proven; where the server ended meanwhile, or runs beside its GPUs, also what its log says of it."""
    sentences = [str(problem) for problem in problems]
    account = observe.account(place)
    ended = account.get("exit") if account.get("launch") == value["launch"]["id"] else None
    if ended or value["launch"].get("gpus"):
        status = ended.get("status") if ended else None
        found = diagnosis.find(status, _lines(place, value), postmortem.look(place, value, began))
        sentences += [f"Its log says: {found.problem}"] if found else []
    return "\n".join(sentences)
