# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a server failed, in plain words: from its exit status, its log and the state of the host. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import evidence
from .causes import CAUSES, OOM, STATUSES, XID, Cause

# The colours that Apptainer writes around its words.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PREFIX = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z]\s+")
SIGKILL, SIGABRT = 137, 134
UNKNOWN = "how much is free is not known"


@dataclass(frozen=True)
class Host:
    """What the host shows after the failure, as far as it is known; nothing of it is needed.

    binds: those of the container, so that a path inside can be said as the host's. gpus: what the GPUs are called, in
    the order in which the instance sees them (CUDA0 first), and gpu_free what is free on each, in MiB. kernel: lines of
    the kernel's log since the start. result: what the manager says of the end ("oom-kill" of systemd).
    """

    image: str = ""
    binds: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    gpu_free: tuple[int, ...] = ()
    memory_free: int | None = None
    port_owner: str | None = None
    kernel: tuple[str, ...] = ()
    result: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The cause by its short name, the sentence with its remedy, and the lines of the log that say so."""

    name: str
    sentence: str
    lines: tuple[str, ...] = field(default=())


def find(exit_status: int | None, lines: Sequence[str], host: Host | None = None) -> Diagnosis | None:
    """The cause, or None where it is not one that is known. ``lines`` are those since this start."""
    where = host or Host()
    # A kill leaves nothing in the log of who is killed, and what stands there is of the time before.
    killed = [line for line in where.kernel if OOM.pattern.search(line)]
    if where.result == "oom-kill" or (exit_status == SIGKILL and killed):
        return _diagnosis(OOM, {"oom": killed[0].strip() if killed else "says its manager"}, where, killed[:1])
    clean = [COLOUR.sub("", line).strip() for line in lines]
    for cause in CAUSES:
        for line in clean:
            match = cause.pattern.search(line)
            if match:
                return _diagnosis(cause, match.groupdict(), where, [line])
    if _xids(where) and exit_status in (None, SIGABRT, SIGKILL):
        return _diagnosis(XID, {}, where, _xids(where))
    by_status = STATUSES.get(exit_status or 0)
    return _diagnosis(by_status, {}, where, ()) if by_status else None


def explain(reason: str, exit_status: int | None, lines: Sequence[str], host: Host | None = None) -> str:
    """One message: what happened, why, what to do, and the lines of the log that say so."""
    found = find(exit_status, lines, host)
    if found is None:
        known = f"{reason}. Its cause is not recognised here" if any(line.strip() for line in lines) else reason
        return evidence.explain(known, lines)
    telling = [PREFIX.sub("", line) for line in found.lines]
    telling += [line for line in evidence.error_lines(lines) if line not in telling]
    shown = "".join(f"\n    {line[:300]}" for line in telling[: evidence.SHOWN])
    return f"{reason}. {found.sentence}" + (f" The log says:{shown}" if shown else "")


def _diagnosis(cause: Cause, groups: Mapping[str, str | None], host: Host, lines: Sequence[str]) -> Diagnosis:
    values = _Words({key: value for key, value in groups.items() if value})
    if "file" in values:
        values["file"] = outside(values["file"], host.binds)
    values.setdefault("image", host.image or "of the instance")
    values["owner"] = f"{host.port_owner} has it" if host.port_owner else "another program has it, or it is not ours"
    values["memory"] = _memory(host)
    values["xid"] = "".join(f" ({line.strip()})" for line in _xids(host)[:1])
    values["gpu"], values["free"] = _gpu(groups.get("device"), host)
    said = " ".join(part for part in (_sentence(cause.says, values), cause.remedy) if part)
    return Diagnosis(cause.name, said, tuple(lines))


class _Words(dict[str, str]):
    """What fills a sentence; a group of the pattern that took no part in the match is empty."""

    def __missing__(self, key: str) -> str:
        return ""


def _sentence(template: str, values: _Words) -> str:
    """The template filled; without what empty places leave behind."""
    text = template.format_map(values)
    text = re.sub(r"\(\s*\)|: (?=\.)", "", text)
    return re.sub(r"\s+(?=[.,:;])|\.(?=\.)", "", text).rstrip()


def outside(path: str, binds: Sequence[str]) -> str:
    """A path of the container as the host has it, through the most special bind that covers it."""
    best: tuple[str, str] | None = None
    for bind in binds:
        outer, dummy, rest = bind.partition(":")
        inner = (rest.split(":")[0] or outer).rstrip("/")
        if (path == inner or path.startswith(inner + "/")) and (best is None or len(inner) > len(best[0])):
            best = (inner, outer.rstrip("/"))
    return best[1] + path[len(best[0]) :] if best else path


def _xids(host: Host) -> list[str]:
    return [line for line in host.kernel if XID.pattern.search(line)]


def _memory(host: Host) -> str:
    return UNKNOWN if host.memory_free is None else f"{host.memory_free} MiB are free now"


def _gpu(device: str | None, host: Host) -> tuple[str, str]:
    """What the device of the log is called, and what is free on it; on all of them where the log names none."""
    number = re.search(r"\d+", device or "")
    names = {index: f"GPU {name}" for index, name in enumerate(host.gpus)}
    if number:
        at = int(number[0])
        free = f"{host.gpu_free[at]} MiB are free now" if at < len(host.gpu_free) else UNKNOWN
        return names.get(at, f"GPU CUDA{at} of the instance"), free
    each = [f"{free} MiB on {names.get(index, f'CUDA{index}')}" for index, free in enumerate(host.gpu_free)]
    return "A GPU", f"free now are {', '.join(each)}" if each else UNKNOWN
