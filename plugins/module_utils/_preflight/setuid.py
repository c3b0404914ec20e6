# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Can the container runtime start a container in a systemd unit? It cannot with a setuid starter.

Private to gpufleet.llamacpp; may change at any time.

The units have NoNewPrivileges=yes, so the kernel ignores the setuid bit. System units also have an empty
CapabilityBoundingSet=, so even root could not mount. A runtime without a setuid starter uses user namespaces, which
work.
"""

from __future__ import annotations

import os
import re
import stat

from .._host.files import read_bytes
from .._host.manager import Manager
from .._host.runtime import Run
from .._result import Problem

# A line of apptainer.conf and singularity.conf.
SWITCHED_OFF = re.compile(rb"^\s*allow setuid\s*=\s*no\s*$", re.MULTILINE)


def check_starter(manager: Manager, program: str | None, run: Run) -> list[Problem]:
    """Whether the manager can start a container with the runtime ``program``."""
    if not manager.gains_no_privileges or program is None:
        return []
    starter, configuration = _starter(program, run)
    if starter is None:
        return []
    name = os.path.basename(program)
    text = (
        f"{manager.name} cannot start a container with this {name}: it uses the setuid program {starter}, and in a "
        "systemd unit no program gains privileges"
    )
    remedy = (
        f"Use user namespaces ('allow setuid = no' in {configuration}, or {name} without its setuid part), or set "
        "manager to supervisor."
    )
    return [Problem("manager", text, remedy)]


def _starter(program: str, run: Run) -> tuple[str | None, str]:
    """The setuid starter that the runtime uses, or None; and the runtime's configuration file.

    The runtime itself prints both paths (apptainer buildcfg).
    """
    code, out, dummy = run([program, "buildcfg"])
    values = dict(line.split("=", 1) for line in out.splitlines() if "=" in line) if code == 0 else {}
    name = os.path.basename(program)
    configuration = values.get(f"{name.upper()}_CONF_FILE", f"/etc/{name}/{name}.conf")
    starter = os.path.join(values.get("LIBEXECDIR", "/usr/libexec"), name, "bin", "starter-suid")
    try:
        status = os.stat(starter)
        switched_off = SWITCHED_OFF.search(read_bytes(configuration) or b"")
    except OSError:
        return None, configuration
    used = status.st_uid == 0 and status.st_mode & stat.S_ISUID and not switched_off
    return (starter if used else None), configuration
