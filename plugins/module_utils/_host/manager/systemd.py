# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd as a manager: of the host, with root, and of a user who lingers, without.

Private to gpufleet.llamacpp; may change at any time. Directives: systemd.service(5), systemd.exec(5), systemd.unit(5).
"""

from __future__ import annotations

import os

from .. import layout
from ..files import remove as remove_file
from ..process import user_name
from .base import RESTART_EXCEPT, STOP_MARGIN, Manager, ManagerError, Run, Unit, UnitState

BOOTED = "/run/systemd/system"  # exists if and only if systemd is the host's init, sd_booted(3)
LINGERING = "/var/lib/systemd/linger"  # one file for each user who lingers, loginctl(1)
PROPERTIES = "LoadState,ActiveState,SubState,Result,MainPID,UnitFileState"

# For both kinds. Type=notify and the watchdog speak with the runner. KillMode=mixed: TERM to the runner alone, or the
# server would be cut while the runner drains it; what is left after it is killed. Restart=always: a server that a
# neighbour's `pkill` made leave with status 0 has to come back too. No start limit: a host that was short of GPU memory
# for an hour must not stay down; the runner makes every failed start last some seconds, which bounds a crash loop.
SERVICE = """\
Type=notify
NotifyAccess=main
ExecStart={command}
KillMode=mixed
TimeoutStartSec={start}
TimeoutStopSec={stop}
TimeoutAbortSec=10
WatchdogSec=60
Restart=always
RestartSec=2
RestartPreventExitStatus={never}
LimitMEMLOCK=infinity
LimitCORE=0
NoNewPrivileges=yes
"""

# What was seen to work with Apptainer's unprivileged starter and llama-server. Not here because it breaks them:
# PrivateDevices and DevicePolicy=closed (no /dev/fuse, no /dev/nvidia*), RestrictNamespaces=yes, ProtectHome=yes,
# MemoryDenyWriteExecute (CUDA compiles at run time). Not here because nobody has tried it with CUDA: SystemCallFilter.
HARDENING = """\
CapabilityBoundingSet=
PrivateTmp=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=user mnt pid ipc
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
"""


def quote(word: str, *, command: bool) -> str:
    """A word for a unit file: specifiers (%) and, in a command line, variables ($) stay text."""
    special = {
        "\\": "\\\\",
        '"': '\\"',
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "%": "%%",
        "$": "$$" if command else "$",
    }
    return '"' + "".join(special.get(letter, letter) for letter in word) + '"'


class Systemd(Manager):
    """The host's own systemd: the server runs as an unprivileged user, the unit is root's."""

    name = "systemd"
    auto_for_root = True
    has_journal = True
    gains_no_privileges = True  # NoNewPrivileges=yes
    target = "multi-user.target"
    folder = layout.SYSTEM_UNITS

    @classmethod
    def obstacle(cls) -> str:
        if not os.path.isdir(BOOTED):
            return "systemd is not the init of this host"
        return "" if os.geteuid() == 0 else "a system unit needs root"

    @classmethod
    def runs_as(cls, user: str) -> str | None:
        return user

    @classmethod
    def state_dir(cls, folder: str) -> str:
        return layout.runtime(os.path.basename(folder))

    def systemctl(self, *words: str) -> list[str]:
        """The command line of systemctl for this manager."""
        return ["systemctl", *words]

    @staticmethod
    def unit_name(unit: Unit) -> str:
        """The name of the unit in systemd's words."""
        return f"{layout.unit(unit.name)}.service"

    def path(self, unit: Unit) -> str:
        """Where the unit file lies."""
        return os.path.join(self.folder, self.unit_name(unit))

    def plan_files(self, unit: Unit) -> dict[str, bytes]:
        return {self.path(unit): self.render(unit).encode()}

    def render(self, unit: Unit) -> str:
        """The whole unit file."""
        lines = ["# Written by gpufleet.llamacpp; changes are overwritten.", "[Unit]"]
        lines += ["Description=" + unit.description.replace("%", "%%"), "StartLimitIntervalSec=0"]
        lines += [*self.dependencies(unit), "", "[Service]"]
        service = SERVICE.format(
            # systemd looks for the program before it undoes %% and $$, but no path of a python3 has either.
            command=" ".join(quote(word, command=True) for word in unit.command),
            start=unit.start_timeout,
            stop=unit.stop_timeout + STOP_MARGIN,
            never=RESTART_EXCEPT,
        )
        return "\n".join(lines) + "\n" + service + self.privileges(unit) + f"\n[Install]\nWantedBy={self.target}\n"

    def dependencies(self, unit: Unit) -> list[str]:
        """What has to be there first. An ordering after a unit that does not exist has no effect."""
        mounts = [f"RequiresMountsFor={quote(path, command=False)}" for path in unit.mounts]
        return ["Wants=network-online.target", "After=network-online.target nvidia-persistenced.service", *mounts]

    def privileges(self, unit: Unit) -> str:
        """Who the server is, and what it may not do."""
        if unit.user in (None, "", "root", "0"):
            raise ManagerError(f"{unit.name} would run as root", "Set the option user to an unprivileged user.")
        return f"User={unit.user}\n{self.runtime_directory(unit)}" + HARDENING

    def runtime_directory(self, unit: Unit) -> str:
        """Where the runner may write its running.json; it stays after the end, for whoever asks why."""
        return f"RuntimeDirectory={layout.unit(unit.name)}\nRuntimeDirectoryPreserve=yes\n"

    def enabled(self, unit: Unit) -> bool:
        return os.path.islink(os.path.join(self.folder, self.target + ".wants", self.unit_name(unit)))

    def observe(self, unit: Unit) -> UnitState:
        out = self.must(self.systemctl("show", "-p", PROPERTIES, self.unit_name(unit)))
        return parse_show(out)

    def install(self, unit: Unit) -> None:
        if self.write(unit):
            self.must(self.systemctl("daemon-reload"))
        if self.enabled(unit) != unit.enabled:
            self.must(self.systemctl("enable" if unit.enabled else "disable", self.unit_name(unit)))

    def start(self, unit: Unit) -> None:
        # crashes of the past must not count against this start
        self.run(self.systemctl("reset-failed", self.unit_name(unit)))
        self.must(self.systemctl("start", "--no-block", self.unit_name(unit)))

    def stop(self, unit: Unit) -> None:
        if not self.observe(unit).installed:
            return
        self.must(self.systemctl("stop", self.unit_name(unit)))
        self.run(self.systemctl("reset-failed", self.unit_name(unit)))  # a server that had to be killed is stopped, too

    def remove(self, unit: Unit) -> None:
        self.stop(unit)
        self.run(self.systemctl("clean", "--what=runtime", self.unit_name(unit)))  # refused where there is none
        if self.enabled(unit):
            self.must(self.systemctl("disable", self.unit_name(unit)))
        if remove_file(self.path(unit)):
            self.must(self.systemctl("daemon-reload"))

    def log_lines(self, unit: Unit, count: int) -> list[str]:
        if unit.log:
            return super().log_lines(unit, count)
        journal = ["journalctl", "--no-pager", "-o", "cat", "-n", str(count), "-u", self.unit_name(unit)]
        return self.run(journal)[1].splitlines()

    def commands(self, unit: Unit) -> dict[str, list[str]]:
        name = self.unit_name(unit)
        journal = ["journalctl", "-n", "100", "-f", "-u", name]
        return {
            "prepare": self.systemctl("reset-failed", name),
            "start": self.systemctl("start", "--no-block", name),
            "stop": self.systemctl("stop", name),
            "pid": self.systemctl("show", "-p", "MainPID", "--value", name),
            "logs": ["tail", "-n", "100", "-F", unit.log] if unit.log else journal,
        }


class SystemdUser(Systemd):
    """The systemd of the user who calls. It lives from boot to shutdown only if the user lingers."""

    name = "systemd_user"
    auto_for_root = False
    has_journal = False  # a user may not always read it
    needs_user_bus = True
    target = "default.target"

    def __init__(self, run: Run, home: str) -> None:
        super().__init__(run, home)
        self.folder = os.path.expanduser(layout.USER_UNITS)

    @classmethod
    def obstacle(cls) -> str:
        user = user_name(os.getuid())
        if not os.path.isdir(BOOTED):
            return "systemd is not the init of this host"
        if os.geteuid() == 0:
            return "a user unit of root would run the server as root"
        if not os.path.exists(os.path.join(LINGERING, user)):
            return f"the user {user} does not linger (loginctl enable-linger {user})"
        if not os.path.exists(os.path.join(runtime_folder(), "systemd/private")):
            return f"the systemd of the user {user} is not running (there is no {runtime_folder()}/systemd/private)"
        return ""

    @classmethod
    def runs_as(cls, user: str) -> str | None:
        return None

    @classmethod
    def state_dir(cls, folder: str) -> str:
        return folder

    def systemctl(self, *words: str) -> list[str]:
        # sudo, cron and some ssh setups leave the variable out, and without it systemctl finds no user manager.
        return ["env", f"XDG_RUNTIME_DIR={runtime_folder()}", "systemctl", "--user", *words]

    def dependencies(self, unit: Unit) -> list[str]:
        return []  # a user manager knows neither the network's targets nor how to mount anything

    def privileges(self, unit: Unit) -> str:
        return ""  # the user's own; most of the hardening needs root


def runtime_folder() -> str:
    """The calling user's XDG_RUNTIME_DIR, where logind puts it."""
    return f"/run/user/{os.getuid()}"


def parse_show(out: str) -> UnitState:
    """The state in the output of ``systemctl show -p PROPERTIES``."""
    value = dict(line.partition("=")[::2] for line in out.splitlines())
    active, sub, result = value.get("ActiveState", ""), value.get("SubState", ""), value.get("Result", "")
    pid = value.get("MainPID", "0")
    return UnitState(
        installed=value.get("LoadState") not in (None, "", "not-found"),
        enabled=value.get("UnitFileState") == "enabled",
        active=active in ("active", "activating", "reloading", "deactivating"),
        pid=int(pid) if pid.isdigit() and pid != "0" else None,
        failed=active == "failed",
        detail=f"{active} ({sub})" + (f", {result}" if result not in ("", "success") else ""),
    )
