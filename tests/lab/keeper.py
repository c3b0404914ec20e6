# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps one process of the lab, mostly a host's container: runs the command, and runs it again when the host reboots.

    keeper.py CGROUP,CGROUP... COMMAND...

It enters the control groups first, so that whatever the command starts is found there and nowhere else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

REBOOT = 133  # what systemd-nspawn exits with under --keep-unit (EXIT_FORCE_RESTART)


def main() -> int:
    for group in sys.argv[1].split(","):
        with open(f"{group}/cgroup.procs", "w") as handle:
            handle.write(str(os.getpid()))
    ending = False
    process: subprocess.Popen[bytes] | None = None

    def end(number: int, dummy: FrameType | None) -> None:
        nonlocal ending
        ending = True
        if process:
            process.send_signal(number)

    # systemd-nspawn takes TERM as a wish for an orderly shutdown.
    signal.signal(signal.SIGTERM, end)
    code = REBOOT
    while code == REBOOT and not ending:
        process = subprocess.Popen(sys.argv[2:])
        code = process.wait()
    return code


if __name__ == "__main__":
    sys.exit(main())
