# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One launch through the gate: wait until it is ready, prove it, and explain why if it does not pass.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._gate import diagnosis, expectation, log_lines, options, proof, wait
from .._gate.checks import gpu_proof
from .._gate.client import NotProven
from .._host import runner
from .._host.gpu import read as gpu
from .._preflight import gpus
from .._result import OperatorError, Problem
from .._spec.record import Record, Release
from .._spec.render import Place, unit
from . import observe, postmortem

# Seconds for one look at /health; llama-server answers it from threads of their own.
HEALTH_TIMEOUT = 5.0
LOG_LINES = 200


class GateFailed(OperatorError):
    """The instance does not work.

    ``stage`` is where it failed, ``shown`` is the cause as the operator reads it (with log lines), ``notes`` say what
    was done about it.
    """

    def __init__(self, stage: str, problems: Sequence[Problem], shown: str, notes: Sequence[str] = ()) -> None:
        super().__init__(*problems)
        self.stage = stage
        self.shown = shown
        self.notes = tuple(notes)

    def __str__(self) -> str:
        return "\n".join([f"Failed at the {self.stage}: {self.shown}", *self.notes])

    def noted(self, *notes: str) -> GateFailed:
        """The same failure, with more notes."""
        return GateFailed(self.stage, self.problems, self.shown, [*self.notes, *notes])


def prove(place: Place, record: Record, timeout: int | None, before: Mapping[str, Any]) -> Release:
    """Wait until the launch of the record is ready, and prove it as far as its gate asks. Raises GateFailed.

    ``timeout`` in seconds, None for one that fits the model's size; ``before`` is the runner's state file from before
    the start, empty where nothing was started.
    """
    launch, began = record.launch, time.time()
    instance_unit = unit(place, record.spec)

    def given_up() -> str | None:
        state = place.manager.observe(instance_unit)
        return None if state.active else state.detail

    outcome = wait.until_ready(
        lambda: observe.runner_state(place),
        lambda: runner.health(launch.url, HEALTH_TIMEOUT),
        given_up,
        launch.id,
        timeout or wait.default_timeout(record.model.size if record.model else None),
        before,
    )
    if not outcome.ready:
        host = postmortem.look(place, record, began)
        why = diagnosis.explain(outcome.reason, outcome.exit_status, _log(place, record), host)
        raise GateFailed("start", [why.problem], str(why))
    expected = expectation.of_record(record, options.from_dict(record.gate))
    on_gpus = _Gpus(record)
    try:
        completion = proof.run(launch.url, runner.read_key(launch.api_key_file), expected, on_gpus.problems)
    except NotProven as error:
        raise GateFailed("proof", error.problems, _explained(place, record, error.problems, began)) from error
    proven = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Release(proven, round(outcome.seconds, 1), completion, on_gpus.rows, record.setup)


class _Gpus:
    """What NVML shows once the model has worked; ``rows`` is None where nothing could be read."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.rows: list[dict[str, Any]] | None = None

    def problems(self) -> Sequence[Problem]:
        """What is wrong with the use of the GPUs; nothing where none was asked for."""
        asked = self.record.launch.gpus or ()
        if not asked:
            return ()
        try:
            cards = gpu.read_gpus()
        except gpu.PynvmlMissing:
            return ()
        except gpu.NvmlUnavailable as error:
            (problem,) = error.problems
            text = f"Whether the server uses its GPUs cannot be checked: {problem.text}"
            return [replace(problem, text=text)]
        seen = gpu_proof.compare(self.record.memory, asked, cards, gpus.pids_of(self.record.launch))
        self.rows = list(seen.rows)
        return seen.problems


def _log(place: Place, record: Record) -> list[str]:
    """The log since this launch was started."""
    lines = place.manager.log_lines(unit(place, record.spec), LOG_LINES)
    return log_lines.this_start(lines, f"starting {record.launch.id}")


def _explained(place: Place, record: Record, problems: Sequence[Problem], began: float) -> str:
    """What was not proven; with what the log says, where the server ended meanwhile or does not use its GPUs."""
    found = [str(problem) for problem in problems]
    state = observe.runner_state(place)
    ended = state.get("exit") if state.get("launch") == record.launch.id else None
    if ended or record.launch.gpus:
        status = ended.get("status") if ended else None
        cause = diagnosis.find(status, _log(place, record), postmortem.look(place, record, began))
        found += [f"The server's log shows: {cause.problem}"] if cause else []
    return "\n".join(found)
