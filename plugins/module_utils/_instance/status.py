# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance as a module returns it: what is recorded, what runs, and where the two drift apart.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._host import layout, process, runner
from .._host import manager as managers
from .._host.gpu import read as gpu
from .._host.manager import UnitState
from .._host.runtime import Run
from .._preflight.gpus import Neighbour, pids_of
from .._result import Action, OperatorError, diff_of, result
from .._spec import store
from .._spec.launch import Launch
from .._spec.record import Record, Release
from .._spec.render import Place, unit
from . import observe, plan
from .decide import Decision
from .request import Answer, Case

HEALTH_TIMEOUT = 2.0
HEALTH = {200: "ok", 503: "loading", None: "unreachable"}


def absent(name: str) -> dict[str, Any]:
    """What is returned for an instance that the host does not have."""
    return {"name": name, "state": "absent"}


def describe(place: Place, record: Record, unit_state: UnitState) -> dict[str, Any]:
    """The instance as it is at this moment. uptime in seconds, sizes in bytes."""
    spec, launch = record.spec, record.launch
    now = observe.running(place)
    pid = now.get("server_pid") if process.alive(now.get("server_pid"), now.get("server_start")) else None
    code = runner.health(launch.url, HEALTH_TIMEOUT) if pid else None
    uptime = process.uptime(pid) if pid else None
    return {
        "name": place.name,
        "state": "running" if pid and code == 200 else _unit_state(unit_state),
        "enabled": unit_state.enabled,
        "manager": record.manager,
        "folder": place.folder,
        "pid": pid,
        "uptime": round(uptime) if uptime is not None else None,
        "health": HEALTH.get(code, f"HTTP {code}") if pid else None,
        "url": launch.url,
        "host": spec.host,
        "port": spec.port,
        "alias": spec.value("alias"),
        "model": _without_stamps(record.model.to_json() if record.model else None),
        "image": _without_stamps(record.image.to_json() if record.image else None),
        "context_size": spec.value("context_size"),
        "gpus": list(spec.gpus),
        "argv": launch.argv,
        "launch": launch.id,
        "release": _release(record.release),
        "drift": drift(launch, now, pid, unit_state),
    }


def look(place: Place, record: Record) -> dict[str, Any]:
    """Like describe, after asking the manager. Raises ManagerError."""
    return describe(place, record, place.manager.observe(unit(place, record.spec)))


def _unit_state(unit: UnitState) -> str:
    """The state of an instance whose server does not answer that it is ready."""
    if unit.active:
        return "starting"
    return "failed" if unit.failed else "stopped"


def _without_stamps(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A file's facts as an operator wants them, without the stat values."""
    return {key: value for key, value in facts.items() if key not in ("stamp", "files")} if facts else None


def _release(release: Release | None) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "launch": release.setup.launch.id,
        "proven": release.proven,
        "ready_seconds": release.ready_seconds,
        "completion": dict(release.completion),
    }


def drift(launch: Launch, now: Mapping[str, Any], pid: int | None, unit_state: UnitState) -> list[str]:
    """The differences between what runs and what is recorded, in words."""
    found = []
    if pid and now.get("launch") != launch.id:
        found.append(f"the process was started with launch {now.get('launch')}, recorded is {launch.id}")
    if pid and now.get("launch") == launch.id:
        argv = process.command(pid)
        if argv and list(argv[1:]) != list(launch.arguments):
            found.append("the arguments of the process are not the recorded ones")
    if unit_state.orphaned:
        found.append(unit_state.detail)
    if unit_state.active and not unit_state.enabled:
        found.append("it runs now and would not start at boot")
    if unit_state.enabled and not unit_state.active:
        found.append("it should run and does not")
    return found


def gpu_memory(runner_pid: int | None) -> list[dict[str, Any]]:
    """What the processes below the runner hold on each GPU, in bytes; empty where nothing runs or there is no NVML."""
    if runner_pid is None:
        return []
    try:
        gpus = gpu.read_gpus()
    except gpu.NvmlUnavailable:
        return []
    ours = set(runner.below(runner_pid))
    held = [(card, sum(held.memory or 0 for held in card.processes if held.pid in ours)) for card in gpus]
    return [
        {"index": card.index, "uuid": card.uuid, "memory": memory, "total": card.memory_total}
        for card, memory in held
        if memory
    ]


def one(home: str, name: str, run: Run, log_lines: int = 0) -> dict[str, Any]:
    """One instance in whatever state, with its memory on the GPUs and so many last lines of its log. Reads only."""
    try:
        record = store.read(layout.instance(home, name))
        if record is None:
            return absent(name)
        place = Place(home, name, managers.select(record.manager, home=home, run=run), run)
        found = look(place, record)
    except (OperatorError, OSError) as error:
        return {"name": name, "state": "broken", "problem": str(error)}
    if log_lines > 0:
        found["log"] = place.manager.log_lines(unit(place, record.spec), log_lines)
    return {**found, "gpu_memory": gpu_memory(observe.running(place).get("runner_pid"))}


def answer(case: Case, decision: Decision, instance: dict[str, Any], pulled: Sequence[Action] | None = None) -> Answer:
    """The module's result. ``pulled``: what was done to have the image; None where nothing was done yet."""
    record, actions = decision.wanted.record, case.image.actions if pulled is None else pulled
    more: dict[str, Any] = {"diff": diff_of(_shown(case.last), _shown(record), case.spec.name)}
    if decision.memory.rows:
        more |= {"memory": list(decision.memory.rows), "memory_source": decision.memory.source}
    return Answer(
        result([*actions, *decision.steps], instance, "instance", **more),
        [*case.image.warnings, *map(str, decision.missing), *decision.warnings],
        decision.missing,
        case.image if actions else None,
        record != case.last,
        _takes(case, decision),
    )


def _takes(case: Case, decision: Decision) -> Neighbour | None:
    """What a server that is to be started has of the GPUs by then; None where none is, or where it is not known yet."""
    known, record = decision.memory.record, decision.wanted.record
    if "start" not in plan.kinds(decision.steps) or known is None:
        return None
    planned = {row["uuid"]: row["need"] for row in known["gpus"]}
    ours = pids_of(case.last.launch if case.last else None)
    return Neighbour(case.spec.name, tuple(record.launch.gpus or ()), ours, planned, comes=True)


def _shown(record: Record | None) -> dict[str, Any]:
    """What --diff compares: the command, one word a line, and the files it uses."""
    if record is None:
        return {}
    launch = record.launch
    return {
        "argv": launch.argv,
        "image_sha256": launch.image_sha256,
        "model_sha256": launch.model_sha256,
        "manager": record.manager,
    }
