# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container runtime: Apptainer or Singularity, and how its containers are isolated.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

# Runs an argument list; returns exit status, standard output and standard error.
Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

# Some sites install the runtime outside the short PATH of a command over ssh.
SEARCH = ("/usr/local/bin", "/usr/bin", "/bin", "/opt/apptainer/bin", "/opt/singularity/bin")

# The path of llama-server in common images: the operator's own, the official one, and one of Debian's packages.
SERVER_PATHS = ("/opt/llama.cpp/build/bin/llama-server", "/app/llama-server", "/usr/bin/llama-server")

# With these, HTTPS in the container trusts the authorities that the host trusts; RHEL has them in /etc/pki.
CERTIFICATES = ("/etc/ssl/certs", "/etc/pki")

# Without --no-eval Apptainer evaluates $(...) in values of --env. Without --cleanenv the host's LLAMA_ARG_* would reach
# llama-server, and without --no-home ~/.config/llama.cpp/config.ini would.
ISOLATION = ("--no-eval", "--cleanenv", "--no-home", "--pwd", "/")


def find() -> str | None:
    """Absolute path of apptainer, or else of singularity; None if the host has neither."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SEARCH])
    return shutil.which("apptainer", path=path) or shutil.which("singularity", path=path)


def certificate_binds() -> list[str]:
    """Bind options for the host's certificate folders that exist."""
    return [f"{folder}:{folder}:ro" for folder in CERTIFICATES if os.path.isdir(folder)]
