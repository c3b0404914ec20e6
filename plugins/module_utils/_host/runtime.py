# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container runtime, Apptainer or Singularity: where it is, and what it runs out of an image.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

# Sites install the runtime outside the short PATH that a command over ssh gets.
SEARCH = ("/usr/local/bin", "/usr/bin", "/bin", "/opt/apptainer/bin", "/opt/singularity/bin")

# Where llama-server lies in the images that are about: the operator's own, the official one, Debian's packages.
SERVER_PATHS = ("/opt/llama.cpp/build/bin/llama-server", "/app/llama-server", "/usr/bin/llama-server")

# Binding these makes HTTPS from inside the container trust what the host trusts (RHEL keeps them in /etc/pki).
CERTIFICATES = ("/etc/ssl/certs", "/etc/pki")

# Apptainer evaluates $(...) in values of --env unless told not to; without --cleanenv the host's LLAMA_ARG_* would
# reach llama-server, and with the home folder mounted so would ~/.config/llama.cpp/config.ini.
ISOLATION = ("--no-eval", "--cleanenv", "--no-home", "--pwd", "/")


def find() -> str | None:
    """Absolute path of apptainer, or else of singularity; None where the host has neither."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SEARCH])
    return shutil.which("apptainer", path=path) or shutil.which("singularity", path=path)


def certificate_binds() -> list[str]:
    """Bind specifications for the host's certificate folders that exist."""
    return [f"{folder}:{folder}:ro" for folder in CERTIFICATES if os.path.isdir(folder)]
