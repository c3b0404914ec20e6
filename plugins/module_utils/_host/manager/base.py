# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every manager does with a unit: observe, install, start, stop and remove it.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..._result import OperatorError, Problem
from ..files import read_bytes, write_atomic
from ..runtime import Run

STOP_MARGIN = 20  # s that a manager waits longer than the runner may take, before it kills the runner
NO_RESTART = 78  # the runner's exit status for a broken instance.json: a restart cannot help


class ManagerError(OperatorError):
    """A manager cannot do what was asked. ``text`` is a phrase without a final period, ``remedy`` whole sentences."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(Problem("", text, remedy))


@dataclass(frozen=True)
class Unit:
    """One instance as a manager sees it.

    ``command``: the runner's. ``user``: the user that the manager switches to; None for none. ``start_timeout`` and
    ``stop_timeout``: seconds; the latter covers the runner's drain and stop. ``mounts``: paths that must be mounted
    before the start. ``log``: the file that the runner writes, None if the journal has the log.
    """

    name: str
    description: str
    command: tuple[str, ...]
    directory: str
    user: str | None
    enabled: bool
    start_timeout: int
    stop_timeout: int
    mounts: tuple[str, ...] = ()
    log: str | None = None

    def __post_init__(self) -> None:
        """Refuse what a unit file cannot contain, and names that would lead to another file."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ManagerError(f"{self.name!r} cannot be the name of a unit", "Use letters, digits, '.', '_' and '-'.")
        for word in (self.description, self.directory, self.user or "", self.log or "", *self.mounts):
            if any(ord(letter) < 32 for letter in word):
                raise ManagerError(f"{word!r} has a control character, which a unit file cannot contain")
        if any("\0" in word for word in self.command):
            raise ManagerError(f"the command of {self.name} has a NUL byte")


@dataclass(frozen=True)
class UnitState:
    """The state of a unit. ``active``: it runs, or its manager is about to start it; ``pid``: the runner's.

    ``orphaned``: it runs without its manager, so that nothing would restart it.
    """

    installed: bool = False
    enabled: bool = False
    active: bool = False
    pid: int | None = None
    failed: bool = False
    detail: str = ""
    orphaned: bool = False


class Manager:
    """Keeps the process of a unit alive. All commands go through ``run``; errors are ManagerError.

    Other code asks a manager what it can do, and never compares its name.
    """

    name = ""
    auto_for_root = False  # whether ``auto`` tries it for root, or else for all other users
    has_journal = False  # the server's log is in systemd's journal; otherwise the runner writes a file
    gains_no_privileges = False  # setuid has no effect on what the unit starts
    needs_user_bus = False  # its commands need XDG_RUNTIME_DIR

    def __init__(self, run: Run, home: str) -> None:
        self.run, self.home = run, home
        self.why = ""  # why ``auto`` chose this manager and not the one before it

    @classmethod
    def obstacle(cls) -> str:
        """Why this host or user cannot use this manager, as a phrase; "" if they can."""
        return ""

    @classmethod
    def runs_as(cls, user: str) -> str | None:
        """The user that the server runs as, given the option ``user``; None if it is the user who deploys."""
        return None

    @classmethod
    def state_dir(cls, folder: str) -> str:
        """Where the runner of the instance in ``folder`` writes its state: a folder that the server's user owns."""
        return folder

    def observe(self, unit: Unit) -> UnitState:
        """The state of the unit. One command; changes nothing."""
        raise NotImplementedError

    def plan_files(self, unit: Unit) -> dict[str, bytes]:
        """The content of the unit's files, by path."""
        raise NotImplementedError

    def enabled(self, unit: Unit) -> bool:
        """Whether the unit starts at boot; without a command if possible."""
        raise NotImplementedError

    def differs(self, unit: Unit) -> list[str]:
        """What install() would change, as phrases; changes nothing."""
        words = [f"{path} {'is missing' if old is None else 'differs'}" for path, old in self.outdated(unit).items()]
        if self.enabled(unit) != unit.enabled:
            words.append("it does not start at boot" if unit.enabled else "it starts at boot")
        return words

    def outdated(self, unit: Unit) -> dict[str, bytes | None]:
        """The present content of every file of the unit that is not as it should be; None for a missing file."""
        present = {path: read_bytes(path) for path in self.plan_files(unit)}
        return {path: present[path] for path, data in self.plan_files(unit).items() if present[path] != data}

    def install(self, unit: Unit) -> None:
        """Write what differs, and enable or disable the unit. Neither starts nor stops it."""
        raise NotImplementedError

    def start(self, unit: Unit) -> None:
        """Start the installed unit; returns before the server is ready."""
        raise NotImplementedError

    def stop(self, unit: Unit) -> None:
        """Stop the unit; returns when none of its processes runs, after stop_timeout + STOP_MARGIN seconds at most."""
        raise NotImplementedError

    def remove(self, unit: Unit) -> None:
        """Stop the unit and remove every trace of it from this manager."""
        raise NotImplementedError

    def commands(self, unit: Unit) -> dict[str, list[str]]:
        """Commands for the control script, each a list of arguments.

        ``prepare`` comes before a start, and its exit status does not matter; ``start``; ``stop``; ``pid`` prints the
        runner's pid, 0 or nothing where there is none; ``logs`` follows the log.
        """
        raise NotImplementedError

    def log_lines(self, unit: Unit, count: int) -> list[str]:
        """The last lines of the server's log, oldest first; empty if there is none or it may not be read."""
        data = read_bytes(unit.log) if unit.log else None
        return (data or b"").decode("utf-8", "replace").splitlines()[-count:]

    def write(self, unit: Unit) -> list[str]:
        """Write the files that differ; returns their paths. Raises ManagerError."""
        outdated = list(self.outdated(unit))
        for path in outdated:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                write_atomic(path, self.plan_files(unit)[path])
            except OSError as error:
                raise ManagerError(f"{path} cannot be written: {error.strerror}") from error
        return outdated

    def must(self, argv: list[str]) -> str:
        """Run a command and return its output. Raises ManagerError if it fails."""
        code, out, err = self.run(argv)
        if code:
            lines = (err.strip() or out.strip() or "no output").splitlines()
            raise ManagerError(f"`{' '.join(argv)}` failed with exit status {code}: {' / '.join(lines[-3:])}")
        return out
