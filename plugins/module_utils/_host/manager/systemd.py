# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd as a manager: the system's for root, and the user's own for a user who lingers.

Private to gpufleet.llamacpp; may change at any time. Directives: systemd.service(5), systemd.exec(5), systemd.unit(5).
"""

from __future__ import annotations

import os

from .. import layout
from ..files import remove as remove_file
from ..process import user_name
from ..runtime import Run
from .base import NO_RESTART, STOP_MARGIN, Manager, ManagerError, Unit, UnitState

BOOTED = "/run/systemd/system"  # exists if and only if systemd is the host's init, sd_booted(3)
LINGERING = "/var/lib/systemd/linger"  # one file for each user who lingers, loginctl(1)
PROPERTIES = "LoadState,ActiveState,SubState,Result,MainPID,UnitFileState"

# For both kinds. The runner sends the notifications of Type=notify and WatchdogSec. KillMode=mixed: TERM goes to the
# runner alone, because the server has to finish its requests first; what is left afterwards is killed. Restart=always:
# a server that somebody's `pkill` ended with status 0 has to come back too. No start limit: a host that lacked GPU
# memory for an hour must come back; a failed start takes the runner some seconds, which bounds a crash loop.
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

# Apptainer's unprivileged starter and llama-server were seen to work with these. They do not work with PrivateDevices
# and DevicePolicy=closed (no /dev/fuse, no /dev/nvidia*), RestrictNamespaces=yes, ProtectHome=yes and
# MemoryDenyWriteExecute (CUDA compiles at run time). SystemCallFilter was not tried with CUDA.
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
    """A word for a unit file, in which specifiers (%) and, in a command line, variables ($) are plain text."""
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
    """The system's systemd: root owns the unit, and the server runs as an unprivileged user."""

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
        """The name of the systemd unit."""
        return f"{layout.unit(unit.name)}.service"

    def path(self, unit: Unit) -> str:
        """The path of the unit file."""
        return os.path.join(self.folder, self.unit_name(unit))

    def plan_files(self, unit: Unit) -> dict[str, bytes]:
        return {self.path(unit): self.render(unit).encode()}

    def render(self, unit: Unit) -> str:
        """The content of the unit file."""
        lines = ["# Written by gpufleet.llamacpp; changes are overwritten.", "[Unit]"]
        lines += ["Description=" + unit.description.replace("%", "%%"), "StartLimitIntervalSec=0"]
        lines += [*self.dependencies(unit), "", "[Service]"]
        service = SERVICE.format(
            # systemd looks up the program before it replaces %% and $$, but no path of a python3 has either.
            command=" ".join(quote(word, command=True) for word in unit.command),
            start=unit.start_timeout,
            stop=unit.stop_timeout + STOP_MARGIN,
            never=NO_RESTART,
        )
        return "\n".join(lines) + "\n" + service + self.privileges(unit) + f"\n[Install]\nWantedBy={self.target}\n"

    def dependencies(self, unit: Unit) -> list[str]:
        """What must be up first. After= a unit that does not exist has no effect."""
        mounts = [f"RequiresMountsFor={quote(path, command=False)}" for path in unit.mounts]
        return ["Wants=network-online.target", "After=network-online.target nvidia-persistenced.service", *mounts]

    def privileges(self, unit: Unit) -> str:
        """The user that the server runs as, and what it may not do."""
        if unit.user in (None, "", "root", "0"):
            raise ManagerError(f"{unit.name} would run as root", "Set the option user to an unprivileged user.")
        return f"User={unit.user}\n{self.runtime_directory(unit)}" + HARDENING

    def runtime_directory(self, unit: Unit) -> str:
        """The folder for the runner's state. It stays after a stop, because the state has the reason of the end."""
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
        # Earlier crashes must not count against this start.
        self.run(self.systemctl("reset-failed", self.unit_name(unit)))
        self.must(self.systemctl("start", "--no-block", self.unit_name(unit)))

    def stop(self, unit: Unit) -> None:
        if not self.observe(unit).installed:
            return
        self.must(self.systemctl("stop", self.unit_name(unit)))
        self.run(
            self.systemctl("reset-failed", self.unit_name(unit))
        )  # a server that was killed is stopped, not failed

    def remove(self, unit: Unit) -> None:
        self.stop(unit)
        self.run(self.systemctl("clean", "--what=runtime", self.unit_name(unit)))  # fails if there is none
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
    """The systemd of the user who deploys. It runs from boot to shutdown only if the user lingers."""

    name = "systemd_user"
    auto_for_root = False
    has_journal = False  # not every user may read it
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
        # sudo, cron and some ssh setups do not set the variable, and systemctl needs it to find the user's systemd.
        return ["env", f"XDG_RUNTIME_DIR={runtime_folder()}", "systemctl", "--user", *words]

    def dependencies(self, unit: Unit) -> list[str]:
        return []  # a user's systemd has no network targets and mounts nothing

    def privileges(self, unit: Unit) -> str:
        return ""  # most of the hardening needs root


def runtime_folder() -> str:
    """The default of XDG_RUNTIME_DIR for the calling user."""
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
