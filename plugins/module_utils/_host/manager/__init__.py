# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The managers that can keep an instance alive, and which of them this host and this user have.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os

from ..process import user_name
from .base import Manager, ManagerError, Run, Unit, UnitState
from .supervisor import Supervisor
from .systemd import Systemd, SystemdUser, runtime_folder

__all__ = ["Manager", "ManagerError", "Run", "Unit", "UnitState", "select"]

BOOTED = "/run/systemd/system"  # there if and only if systemd is the host's init, sd_booted(3)
LINGERING = "/var/lib/systemd/linger"  # one file for each user who lingers, loginctl(1)


def select(requested: str, *, home: str, run: Run) -> Manager:
    """The manager that is meant by ``auto``, ``systemd``, ``systemd_user`` or ``supervisor``.

    ``auto`` is systemd with root, systemd_user where the user lingers, else supervisor; ``notes`` of the result tell
    why not something better. Changes nothing. Raises ManagerError where what was asked for cannot work here.
    """
    if requested not in ("auto", "systemd", "systemd_user", "supervisor"):
        raise ManagerError(f"there is no manager {requested!r}: choose auto, systemd, systemd_user or supervisor")
    root = os.geteuid() == 0
    if requested == "supervisor":
        return Supervisor(run, home)
    if requested == "systemd" or (requested == "auto" and root):
        problem = no_systemd(root)
        if not problem:
            return Systemd(run)
    else:
        problem = no_systemd_user(root)
        if not problem:
            return SystemdUser(run)
    if requested != "auto" or root:
        raise ManagerError(problem)
    fallback = Supervisor(run, home)
    fallback.notes = (problem,)
    return fallback


def no_systemd(root: bool) -> str:
    """Why a unit of the host is not possible; '' if it is."""
    if not os.path.isdir(BOOTED):
        return "systemd is not the init of this host"
    return "" if root else "a unit of the host needs root; without it, use systemd_user or supervisor"


def no_systemd_user(root: bool) -> str:
    """Why a unit of the calling user is not possible; '' if it is."""
    user = user_name(os.getuid())
    if not os.path.isdir(BOOTED):
        return "systemd is not the init of this host"
    if root:
        return "root has units of the host; a unit of root's own would run the server as root"
    if not os.path.exists(os.path.join(LINGERING, user)):
        return (
            f"the user {user} does not linger, so units of theirs end with the last login "
            f"(`loginctl enable-linger {user}`, if this site allows it)"
        )
    if not os.path.exists(os.path.join(runtime_folder(), "systemd/private")):
        return f"the systemd of the user {user} is not running (no {runtime_folder()}/systemd/private)"
    return ""
