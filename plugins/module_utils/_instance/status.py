# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance as a module returns it: what is recorded, what runs, and where the two drift apart.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._host import manager as managers
from .._host import process, runner
from .._host.gpu import read as gpu
from .._host.manager import UnitState
from .._host.runtime import Run
from .._spec import record
from . import observe
from .observe import Place

HEALTH_TIMEOUT = 2.0
HEALTH = {200: "ok", 503: "loading", None: "unreachable"}
RELEASE = ("proven", "ready_seconds", "completion")


def absent(name: str) -> dict[str, Any]:
    """What is returned for an instance that the host does not have."""
    return {"name": name, "state": "absent"}


def describe(place: Place, value: Mapping[str, Any], unit: UnitState) -> dict[str, Any]:
    """The instance whose record is ``value``, as it is at this moment. uptime in seconds, sizes in bytes."""
    spec, launch = value["spec"], value["launch"]
    now = observe.running(place)
    pid = now.get("server_pid") if process.alive(now.get("server_pid"), now.get("server_start")) else None
    code = runner.health(launch["url"], HEALTH_TIMEOUT) if pid else None
    uptime = process.uptime(pid) if pid else None
    return {
        "name": place.name,
        "state": "running" if pid and code == 200 else _unit_state(unit),
        "enabled": unit.enabled,
        "manager": value["manager"],
        "folder": place.folder,
        "pid": pid,
        "uptime": round(uptime) if uptime is not None else None,
        "health": HEALTH.get(code, f"HTTP {code}") if pid else None,
        "url": launch["url"],
        "host": spec["host"],
        "port": spec["port"],
        "alias": spec["alias"],
        "model": _without_stamps(value["model"]),
        "image": _without_stamps(value["image"]),
        "context_size": spec["context_size"],
        "gpus": list(spec["gpus"]),
        "argv": launch["argv"],
        "launch": launch["id"],
        "release": _release(value["release"]),
        "drift": drift(launch, now, pid, unit),
    }


def look(place: Place, value: Mapping[str, Any]) -> dict[str, Any]:
    """Like describe, after asking the manager. Raises ManagerError."""
    return describe(place, value, place.manager.observe(observe.unit(place, value["spec"])))


def _unit_state(unit: UnitState) -> str:
    """The state of an instance whose server does not answer that it is ready."""
    if unit.active:
        return "starting"
    return "failed" if unit.failed else "stopped"


def _without_stamps(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A file's facts as an operator wants them; the stat values are for us."""
    return {key: value for key, value in facts.items() if key not in ("stamp", "files")} if facts else None


def _release(release: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if release is None:
        return None
    return {"launch": release["launch"]["id"], **{key: release.get(key) for key in RELEASE}}


def drift(launch: Mapping[str, Any], now: Mapping[str, Any], pid: int | None, unit: UnitState) -> list[str]:
    """Where what runs is not what is recorded, in words."""
    found = []
    if pid and now.get("launch") != launch["id"]:
        found.append(f"the process was started with launch {now.get('launch')}, recorded is {launch['id']}")
    if pid and now.get("launch") == launch["id"]:
        argv = process.command(pid)
        # The server's own arguments stand at the end of the container's.
        if argv and list(argv[1:]) != list(launch["argv"][len(launch["argv"]) - len(argv) + 1 :]):
            found.append("the arguments of the process are not the recorded ones")
    if unit.orphaned:
        found.append(unit.detail)
    if unit.active and not unit.enabled:
        found.append("it runs now and would not start at boot")
    if unit.enabled and not unit.active:
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
        value = record.read(os.path.join(home, name))
        if value is None:
            return absent(name)
        place = Place(home, name, managers.select(value["manager"], home=home, run=run), run)
        found = look(place, value)
    except (ValueError, OSError, managers.ManagerError) as error:
        return {"name": name, "state": "broken", "problem": str(error)}
    if log_lines > 0:
        found["log"] = place.manager.log_lines(observe.unit(place, value["spec"]), log_lines)
    return {**found, "gpu_memory": gpu_memory(observe.running(place).get("runner_pid"))}
