# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for apptainer.

It starts a helper (the FUSE process) and the program with a clean environment, and passes on signals and exit status.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
helper = subprocess.Popen(["sleep", "1000"], preexec_fn=os.setpgrp, env={})
child = subprocess.Popen([here + "/llama-server", *sys.argv[1:]], env={})
with open(here + "/pids", "w") as file:
    file.write(f"{os.getpid()} {helper.pid} {child.pid}")
signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
status = child.wait()
sys.exit(128 - status if status < 0 else status)
