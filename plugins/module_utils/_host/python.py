# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libraries that a module needs: imported here, or from the host's own Python environment.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import importlib.util
import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.respawn import has_respawned, respawn_module

from .layout import venv_python

# The distribution on PyPI, and its name in an import.
LIBRARIES = {"requests": "requests", "nvidia-ml-py": "pynvml"}


def has_library(distribution: str) -> bool:
    """Whether this interpreter can import the library. Imports nothing."""
    return importlib.util.find_spec(LIBRARIES[distribution]) is not None


def prefer_library(distribution: str, home: str) -> bool:
    """Like ensure_library, for an optional library: False if neither interpreter has it."""
    if has_library(distribution):
        return True
    python = venv_python(home)
    if not has_respawned() and os.path.exists(python):
        respawn_module(python)
    return False


def ensure_library(module: AnsibleModule, distribution: str, home: str) -> None:
    """Return if the library can be imported. Otherwise respawn the module in the host's environment, or fail it.

    Call it before any change: a respawned module runs from its first line.
    """
    if not prefer_library(distribution, home):
        where = f"in this Python or in {venv_python(home)}, where the role gpufleet.llamacpp.llamacpp_host installs it"
        module.fail_json(msg=missing_required_lib(distribution, reason=where))
