# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""supervisord as a manager, for a user without root who does not linger. The user's crontab starts it at boot.

Private to gpufleet.llamacpp; may change at any time. Options: supervisord.org, "Configuration File".
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .. import layout, lock, runner
from ..files import remove as remove_file
from ..files import write_atomic
from ..process import command, parent_of
from ..runtime import Run
from .base import NO_RESTART, STOP_MARGIN, Manager, ManagerError, Unit, UnitState
from .supervisord import ACTIVE, CallFailed, Daemon, Unreachable

# %(here)s is the folder of this file, so that no path has to be escaped.
MAIN = f"""\
; Written by gpufleet.llamacpp; changes are overwritten.
[unix_http_server]
file=%(here)s/{layout.SUPERVISORD_SOCKET}
chmod=0700

[supervisord]
logfile=%(here)s/{layout.SUPERVISORD_LOG}
logfile_maxbytes=10MB
logfile_backups=3
pidfile=%(here)s/{layout.SUPERVISORD_PID}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://%(here)s/{layout.SUPERVISORD_SOCKET}

[include]
files={layout.PROGRAMS}/*.conf
"""

# TERM goes to the runner alone (stopasgroup=false), which drains. autorestart=unexpected with one expected exit status:
# after every other end, status 0 included, supervisord restarts the program. startsecs: supervisorctl waits that long.
# stopwaitsecs: the runner limits its own stop; and a change here has no effect until the program's next start.
PROGRAM = """\
; Written by gpufleet.llamacpp; changes are overwritten.
[program:{name}]
command={command}
directory={directory}
autostart={autostart}
autorestart=unexpected
exitcodes={never}
startsecs=1
startretries=3
stopsignal=TERM
stopwaitsecs={longest}
stopasgroup=false
killasgroup=false
redirect_stderr=true
stdout_logfile={directory}/{log}
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
"""

# The path of a unix socket has at most 107 bytes (unix(7)), and supervisord first appends a dot and its pid. A socket
# in /tmp would allow longer homes, but another user could create it first.
LONGEST_HOME = 107 - len(f"/{layout.SUPERVISORD_SOCKET}") - len(".4194304")

LONGEST_STOP = 7200  # s; more than any drain_timeout
LOCK_TIMEOUT = 60.0  # s; another run keeps supervisord for a few seconds


class Supervisor(Manager):
    """One supervisord for all instances of a home."""

    name = "supervisor"

    def __init__(self, run: Run, home: str) -> None:
        super().__init__(run, home)
        self.conf = os.path.join(home, layout.SUPERVISORD_CONF)
        self.supervisord = Daemon(os.path.join(home, layout.SUPERVISORD_SOCKET))
        self.daemon = [layout.venv_program(home, "supervisord"), "-c", self.conf]
        if len(os.fsencode(home)) > LONGEST_HOME:
            raise ManagerError(
                f"the home {home} is too long for supervisord's socket: {len(os.fsencode(home))} bytes, at most "
                f"{LONGEST_HOME}",
                "Choose a shorter home.",
            )

    def control(self, *words: str) -> list[str]:
        """The command line of supervisorctl for this home."""
        return [layout.venv_program(self.home, "supervisorctl"), "-c", self.conf, *words]

    def path(self, unit: Unit) -> str:
        """The path of the program's configuration file."""
        return os.path.join(self.home, layout.PROGRAMS, unit.name + ".conf")

    def plan_files(self, unit: Unit) -> dict[str, bytes]:
        program = PROGRAM.format(
            name=unit.name,
            command=escape(" ".join(map(shlex.quote, unit.command))),
            directory=escape(unit.directory),
            autostart="true" if unit.enabled else "false",
            never=NO_RESTART,
            longest=LONGEST_STOP,
            log=layout.RUNNER_LOG,
        )
        return {self.conf: MAIN.encode(), self.path(unit): program.encode()}

    # --- the boot: one line in the user's crontab -------------------------------------------------------------------

    def boot_line(self) -> str:
        """The crontab line. cron runs it in a shell, and takes a bare % for a line break."""
        return "@reboot " + " ".join(map(shlex.quote, self.daemon)).replace("%", r"\%") + self.boot_mark()

    def boot_mark(self) -> str:
        """The end of the line, which identifies it. A comment for the shell."""
        return f" # gpufleet.llamacpp in {self.home}".replace("%", r"\%")

    def crontab(self) -> list[str]:
        """The lines of the user's crontab."""
        if shutil.which("crontab") is None:
            return []
        code, out, err = self.run(["crontab", "-l"])
        if code and "no crontab" not in err:
            raise ManagerError(f"the crontab cannot be read: {err.strip() or out.strip()}")
        return [] if code else out.splitlines()

    def write_crontab(self, boot: bool) -> None:
        """Add or remove our one line. All other lines stay as they are."""
        lines = self.crontab()
        new = [line for line in lines if not line.endswith(self.boot_mark())] + [self.boot_line()] * boot
        if new == lines or sorted(new) == sorted(lines):
            return
        if shutil.which("crontab") is None:
            raise ManagerError("this host has no crontab, which starts supervisord at boot", "Install cron.")
        temporary = os.path.join(self.home, layout.RUN, "crontab.new")
        try:
            os.makedirs(os.path.dirname(temporary), exist_ok=True)
            write_atomic(temporary, ("\n".join(new) + "\n" if new else "").encode(), 0o600)
            self.must(["crontab", temporary])
        finally:
            remove_file(temporary)

    def enabled(self, unit: Unit) -> bool:
        try:
            with open(self.path(unit), encoding="utf-8", errors="replace") as file:
                automatic = "autostart=true\n" in file.read()
        except OSError:
            return False
        return automatic and self.boot_line() in self.crontab()

    # --- the unit ---------------------------------------------------------------------------------------------------

    def observe(self, unit: Unit) -> UnitState:
        if not os.path.exists(self.path(unit)):
            return UnitState(detail="not installed")
        pid = next(iter(runner.runner_of(self.former(unit))), None)
        if pid and self.daemon_is_parent(pid):
            return UnitState(True, self.enabled(unit), active=True, pid=pid, detail="RUNNING")
        try:
            state = state_of(self.supervisord.info(unit.name))
        except Unreachable as error:
            state = UnitState(detail=str(error))
        except CallFailed as error:
            raise ManagerError(f"supervisord does not give the state of {unit.name}: {error}") from error
        if pid and not state.active:
            detail = "the server runs, but supervisord does not, so nothing would restart it"
            state = UnitState(active=True, pid=pid, detail=detail, orphaned=True)
        return replace(state, installed=True, enabled=self.enabled(unit))

    def daemon_is_parent(self, pid: int) -> bool:
        """Whether this process is a child of our supervisord. /proc answers faster than supervisord."""
        parent = command(parent_pid) if (parent_pid := parent_of(pid)) else []
        return any("supervisord" in word for word in parent) and self.conf in parent

    def former(self, unit: Unit) -> dict[str, Any]:
        """The state that the last runner of the unit left."""
        return runner.former_run(os.path.join(unit.directory, layout.STATE))

    @contextlib.contextmanager
    def exclusive(self, unit: Unit) -> Iterator[None]:
        """Hold the lock for what all instances of the home share: supervisord, its configuration, and the crontab."""
        try:
            with lock.hold(layout.supervisord_lock(self.home), f"setting up {unit.name} in supervisord", LOCK_TIMEOUT):
                yield
        except lock.Locked as locked:
            (problem,) = locked.problems
            raise ManagerError(problem.text, problem.remedy) from locked

    def install(self, unit: Unit) -> None:
        os.makedirs(os.path.join(self.home, layout.RUN), mode=0o700, exist_ok=True)
        with self.exclusive(unit):
            self.write(unit)
            if unit.enabled:
                self.write_crontab(True)

    def start(self, unit: Unit) -> None:
        with self.exclusive(unit):
            self.load(unit)

    def load(self, unit: Unit) -> None:
        """Start supervisord if it does not run, load the unit's file, and start the unit."""
        try:
            try:
                self.supervisord.reread(unit.name, stop_limit(unit))
            except Unreachable as error:
                if not os.access(self.daemon[0], os.X_OK):
                    raise ManagerError(
                        f"there is no {self.daemon[0]}", "Run the role gpufleet.llamacpp.llamacpp_host."
                    ) from error
                self.must(self.daemon)  # in a session of its own, so that it outlives this login
            self.supervisord.start(unit.name)
        except (CallFailed, Unreachable) as error:
            log = os.path.join(unit.directory, layout.RUNNER_LOG)
            raise ManagerError(f"supervisord did not start {unit.name}: {error}", f"See {log}.") from error

    def stop(self, unit: Unit) -> None:
        stopped = self.ask_to_stop(unit, stop_limit(unit))
        # supervisord cannot stop a runner that outlived it, nor the container of a runner that was killed.
        self.end(unit, runner.runner_of, unit.stop_timeout + STOP_MARGIN)
        self.end(unit, runner.container_of, STOP_MARGIN)
        if not stopped and not self.ask_to_stop(unit, STOP_MARGIN):
            raise ManagerError(f"supervisord did not stop {unit.name} within {stop_limit(unit):.0f} s")

    def ask_to_stop(self, unit: Unit, seconds: float) -> bool:
        """Whether supervisord stopped the unit within ``seconds``. If it does not run, there is nothing to stop."""
        try:
            return self.supervisord.stop(unit.name, seconds)
        except CallFailed as error:
            raise ManagerError(f"supervisord did not stop {unit.name}: {error}") from error
        except Unreachable:
            return True

    def end(self, unit: Unit, find: Callable[[dict[str, Any]], list[int]], timeout: float) -> None:
        """Send TERM to the processes that find() returns, and KILL after ``timeout`` seconds."""
        former = self.former(unit)
        left = find(former)
        deadline = time.monotonic() + timeout
        runner.send(left, signal.SIGTERM)
        while left and time.monotonic() < deadline + STOP_MARGIN:
            if time.monotonic() >= deadline:
                runner.send(left, signal.SIGKILL)
            time.sleep(0.1)
            left = find(former)
        if left:
            raise ManagerError(
                f"pid {left} of {unit.name} cannot be killed; it waits for a disk or a driver",
                "If it stays so, reboot the host.",
            )

    def remove(self, unit: Unit) -> None:
        self.stop(unit)
        with self.exclusive(unit):
            self.unload(unit)

    def unload(self, unit: Unit) -> None:
        """Remove the unit from supervisord. With the last unit, shut supervisord down and remove its files."""
        remove_file(self.path(unit))
        with contextlib.suppress(Unreachable, CallFailed):  # if it does not run, nothing is loaded
            self.supervisord.reread(unit.name, stop_limit(unit))
        folder = os.path.dirname(self.path(unit))
        if not os.path.isdir(folder) or not any(name.endswith(".conf") for name in os.listdir(folder)):
            self.write_crontab(False)
            with contextlib.suppress(Unreachable, CallFailed):
                self.supervisord.shut_down()
            deadline = time.monotonic() + STOP_MARGIN
            while os.path.exists(os.path.join(self.home, layout.SUPERVISORD_SOCKET)) and time.monotonic() < deadline:
                time.sleep(0.1)  # or the next deployment would meet a supervisord that is shutting down
            remove_file(self.conf)

    def commands(self, unit: Unit) -> dict[str, list[str]]:
        log = unit.log or os.path.join(unit.directory, layout.RUNNER_LOG)
        return {
            "prepare": self.daemon,
            "start": self.control("start", unit.name),
            "stop": self.control("stop", unit.name),
            "pid": self.control("pid", unit.name),
            "logs": ["tail", "-n", "100", "-F", log],
        }


def escape(value: str) -> str:
    """A value for supervisord's configuration, with % as plain text. The start of a comment cannot be escaped."""
    if re.search(r"\s[;#]|[\r\n]", value):
        raise ManagerError(f"supervisord cannot read {value!r}: ' ;', ' #' and line breaks end a value there")
    return value.replace("%", "%%")


def stop_limit(unit: Unit) -> float:
    """Seconds after which a runner that was asked to stop must have ended: it kills itself before."""
    return unit.stop_timeout + runner.STOP_SLACK + STOP_MARGIN


def state_of(info: dict[str, Any]) -> UnitState:
    """The state in supervisord's answer about a program."""
    state = info.get("statename")
    if not state:
        return UnitState(detail="supervisord does not have it")
    return UnitState(
        installed=True,
        active=state in ACTIVE,
        pid=info.get("pid") or None,
        failed=state in ("FATAL", "UNKNOWN"),
        detail=f"{state} {info.get('description') or ''}".strip(),
    )
