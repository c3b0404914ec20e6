# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The managers that can keep an instance running, and the choice of one for this host and user.

Private to gpufleet.llamacpp; may change at any time. A new manager is a file here and a line in MANAGERS.
"""

from __future__ import annotations

import os

from ..runtime import Run
from .base import Manager, ManagerError, Unit, UnitState
from .supervisor import Supervisor
from .systemd import Systemd, SystemdUser

__all__ = ["CHOICES", "MANAGERS", "Manager", "ManagerError", "Unit", "UnitState", "select"]

# In the order in which ``auto`` tries them.
MANAGERS: dict[str, type[Manager]] = {
    Systemd.name: Systemd,
    SystemdUser.name: SystemdUser,
    Supervisor.name: Supervisor,
}
AUTO = "auto"
CHOICES = (AUTO, *MANAGERS)


def select(requested: str, *, home: str, run: Run) -> Manager:
    """The manager for one of CHOICES. Changes nothing. Raises ManagerError where this host or user cannot use it.

    ``auto`` is the first manager for this user that nothing stands against; its ``why`` then says what stood against
    the one before.
    """
    if requested not in CHOICES:
        raise ManagerError(f"there is no manager {requested!r}", f"Choose one of {', '.join(CHOICES)}.")
    root, obstacle = os.geteuid() == 0, ""
    fitting = [kind for kind in MANAGERS.values() if kind.auto_for_root == root]
    for kind in fitting if requested == AUTO else [MANAGERS[requested]]:
        before, obstacle = obstacle, kind.obstacle()
        if not obstacle:
            chosen = kind(run, home)
            chosen.why = f"{kind.name} keeps it running because {before}" if before else ""
            return chosen
    raise ManagerError(obstacle, "Choose another manager.")
