# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the container runtime can start a container in a unit of systemd: not with a setuid starter.

Private to gpufleet.llamacpp; may change at any time.

The units have NoNewPrivileges=yes, under which the kernel ignores the setuid bit, and that of the host an empty
CapabilityBoundingSet=, in which even root could not mount. A runtime that is installed without a setuid starter uses
user namespaces, and that works.
"""

from __future__ import annotations

import os
import re
import stat

from .._host.files import read_bytes
from .._host.manager import Manager
from .._host.runtime import Run

# A line of apptainer.conf and singularity.conf.
SWITCHED_OFF = re.compile(rb"^\s*allow setuid\s*=\s*no\s*$", re.MULTILINE)


def problems(manager: Manager, program: str | None, run: Run) -> list[str]:
    """Why a server that ``program`` starts could not be started by the manager, and what to do. Changes nothing."""
    if not manager.gains_no_privileges or program is None:
        return []
    starter, configuration = _starter(program, run)
    if starter is None:
        return []
    name = os.path.basename(program)
    return [
        f"manager: {manager.name} cannot start a container of this {name}, which does it through the setuid program "
        f"{starter}, and in such a unit no program gains rights. Have it use user namespaces ('allow setuid = no' in "
        f"{configuration}, or {name} installed without its setuid part), or choose manager: supervisor."
    ]


def _starter(program: str, run: Run) -> tuple[str | None, str]:
    """The setuid starter that the runtime would use for a user, or None; and its configuration file.

    Where both lie the runtime tells itself (apptainer buildcfg).
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
