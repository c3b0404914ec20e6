# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a server failed: the known cause that its exit status, its log and the host show. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._result import Problem
from .._spec.launch import outside
from . import log_lines
from .causes import CAUSES, OOM, STATUSES, XID
from .causes.cause import Cause

SIGKILL, SIGABRT = 137, 134


@dataclass(frozen=True)
class HostState:
    """The host after the failure, as far as it is known.

    binds: those of the container, which turn its paths into the host's. gpus: the names of the instance's GPUs in their
    order in the container (CUDA0 first). gpu_free, memory_free: MiB. port_owner: the program that listens on the
    instance's port. kernel: lines of the kernel's log since the start. oom_killed: the manager reports it.
    """

    image: str = ""
    binds: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    gpu_free: tuple[int, ...] = ()
    memory_free: int | None = None
    port_owner: str | None = None
    kernel: tuple[str, ...] = ()
    oom_killed: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """A known cause: its name, the problem with its remedy, and the log lines that show it."""

    name: str
    problem: Problem
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What the operator reads about a failed start: the problem, and log lines as evidence."""

    problem: Problem
    log: tuple[str, ...]

    def __str__(self) -> str:
        shown = "".join(f"\n    {line[: log_lines.WIDTH]}" for line in self.log)
        return f"{self.problem} The log shows:{shown}" if shown else str(self.problem)


def find(exit_status: int | None, lines: Sequence[str], host: HostState | None = None) -> Diagnosis | None:
    """The cause, or None if it is not a known one. ``lines`` are those since this start."""
    host = host or HostState()
    # A killed process cannot log its own end, so the log only shows what happened before.
    oom = [line.strip() for line in host.kernel if OOM.match(line)]
    if host.oom_killed or (exit_status == SIGKILL and oom):
        return _diagnosis(OOM, {}, host, oom[:1])
    clean = [log_lines.plain(line) for line in lines]
    for cause in CAUSES:
        for line in clean:
            match = cause.match(line)
            if match:
                return _diagnosis(cause, match.groupdict(), host, [line])
    xid = _xid(host)
    if xid and exit_status in (None, SIGABRT, SIGKILL):
        return _diagnosis(XID, {}, host, [xid])
    by_status = STATUSES.get(exit_status or 0)
    return _diagnosis(by_status, {}, host, []) if by_status else None


def explain(reason: str, exit_status: int | None, lines: Sequence[str], host: HostState | None = None) -> Explanation:
    """What happened (``reason``, without a final period), why, what to do, and the log lines that show it."""
    errors = log_lines.errors(lines)
    found = find(exit_status, lines, host)
    if found:
        problem = Problem("", f"{reason}. {found.problem.text}", found.problem.remedy)
        shown = dict.fromkeys([*map(log_lines.message, found.lines), *errors])
        return Explanation(problem, tuple(shown)[: log_lines.SHOWN])
    last = [line for line in lines if line.strip()][-log_lines.SHOWN :]
    if not last:
        return Explanation(Problem("", f"{reason}. The log is empty"), ())
    return Explanation(Problem("", f"{reason}. The cause is not a known one"), tuple(errors or last))


def _diagnosis(cause: Cause, groups: Mapping[str, str | None], host: HostState, lines: Sequence[str]) -> Diagnosis:
    values = {**_host_values(host, groups.get("device")), **groups}
    known = {key: value for key, value in values.items() if value}
    if "file" in known:
        known["file"] = outside(known["file"], host.binds)
    return Diagnosis(cause.name, Problem("", cause.filled(known), cause.remedy), tuple(lines))


def _host_values(host: HostState, device: str | None) -> dict[str, str | None]:
    """What the templates can say about the host; None where it is not known. ``device``: as the log names it."""
    number = re.search(r"\d+", device or "")
    chosen = [int(number[0])] if number else range(len(host.gpu_free))
    free = [f"{host.gpu_free[index]} MiB free on {_gpu(index, host)}" for index in chosen if index < len(host.gpu_free)]
    return {
        "image": host.image or "of the instance",
        "gpu": _gpu(chosen[0], host) if number else "A GPU",
        "gpu_free": ", ".join(free),
        "memory_free": None if host.memory_free is None else f"{host.memory_free} MiB",
        "port_owner": host.port_owner,
        "xid": _xid(host),
    }


def _gpu(index: int, host: HostState) -> str:
    return f"GPU {host.gpus[index]}" if index < len(host.gpus) else f"CUDA{index}"


def _xid(host: HostState) -> str | None:
    """The first error of the NVIDIA driver in the kernel's log."""
    return next((line.strip() for line in host.kernel if XID.match(line)), None)
