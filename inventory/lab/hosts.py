#!/usr/bin/env python3
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hosts as an Ansible inventory: whatever `tests/lab/lab up` has booted."""

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).resolve().parents[2] / "tests" / "lab" / "lab"

if __name__ == "__main__":
    sys.exit(subprocess.run([sys.executable, str(LAB), "inventory", *sys.argv[1:]], check=False).returncode)
