# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every path that the collection uses on a host. Nothing is read or written here.

Private to gpufleet.llamacpp; may change at any time. Only the runner keeps two of these names of its own, because it
runs without the collection.
"""

from __future__ import annotations

import os

# In the home, for all instances. No instance can have one of these names.
SHARED = "shared"  # images that were pulled from an address
RUN = "run"  # what supervisord needs while it runs
VENV = "venv"  # the Python environment that the role llamacpp_host makes
PROGRAMS = "supervisor.d"  # one file for each instance under supervisord
SUPERVISORD_CONF = "supervisord.conf"
SUPERVISORD_LOG = "supervisord.log"
RESERVED = (RUN, SHARED, PROGRAMS, SUPERVISORD_CONF, SUPERVISORD_LOG, VENV)

SUPERVISORD_SOCKET = f"{RUN}/supervisor.sock"
SUPERVISORD_PID = f"{RUN}/supervisord.pid"

# In the folder of an instance.
RECORD = "instance.json"
RELEASES = "releases"  # the releases before the current one
FAILURES = "failures"  # one folder for each launch that failed
RUN_SH = "run.sh"
RUNNER = "runner.py"
STATE = "running.json"  # what the runner writes about the running server
LOG = "llama-server.log"  # only where the journal does not keep the log
RUNNER_LOG = "runner.log"  # the runner's own messages, under supervisord

# In a folder of models or images.
MODEL_RECORDS = ".gguf_model"
IMAGE_RECORDS = ".sif_image"
INCOMING = "incoming"  # in these two: files that are not complete yet
IMAGE_OPTIONS = ".options"  # what each image in SHARED answered about itself

# systemd's folders for unit files.
SYSTEM_UNITS = "/etc/systemd/system"
USER_UNITS = "~/.config/systemd/user"


def default_home() -> str:
    """The home where the option is not set: /opt/llamacpp for root, ~/llamacpp for any other user."""
    return "/opt/llamacpp" if os.geteuid() == 0 else os.path.expanduser("~/llamacpp")


def venv_program(home: str, name: str) -> str:
    """A program of the host's Python environment."""
    return os.path.join(home, VENV, "bin", name)


def venv_python(home: str) -> str:
    """The interpreter of the host's Python environment."""
    return venv_program(home, "python")


def instance(home: str, name: str) -> str:
    """The folder of an instance."""
    return os.path.join(home, name)


def instance_lock(home: str, name: str) -> str:
    """The lock that a run holds while it changes an instance."""
    return os.path.join(home, f".{name}.lock")


def instance_removed(home: str, name: str) -> str:
    """The name that the folder of an instance gets before it is deleted, so that no half of it is taken for one."""
    return os.path.join(home, f".{name}.removed")


def supervisord_lock(home: str) -> str:
    """The lock that a run holds while it changes what all instances under supervisord share."""
    return os.path.join(home, ".supervisord.lock")


def unit(name: str) -> str:
    """The name of an instance's systemd unit, without .service. Its folder in /run has the same name."""
    return f"llamacpp-{name}"


def runtime(name: str) -> str:
    """The folder in /run that systemd makes for a system unit, for the runner to write to."""
    return f"/run/{unit(name)}"
