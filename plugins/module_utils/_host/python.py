# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own Python environment: where it is, and how a module moves into it.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import importlib.util
import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.respawn import has_respawned, respawn_module

from .layout import venv_python

# The distribution on PyPI and the name it is imported by.
LIBRARIES = {"requests": "requests", "nvidia-ml-py": "pynvml"}


def has_library(distribution: str) -> bool:
    """Whether this interpreter can import the library; nothing is imported to find out."""
    return importlib.util.find_spec(LIBRARIES[distribution]) is not None


def prefer_library(distribution: str, home: str) -> bool:
    """Like ensure_library, for a library that is good to have: False where neither interpreter has it."""
    if has_library(distribution):
        return True
    python = venv_python(home)
    if not has_respawned() and os.path.exists(python):
        respawn_module(python)
    return False


def ensure_library(module: AnsibleModule, distribution: str, home: str) -> None:
    """Return where the library can be imported; otherwise start the module again in the host's venv, or fail in words.

    Called before anything is changed: a respawned module begins from its first line.
    """
    if not prefer_library(distribution, home):
        where = f"and looked for in {venv_python(home)} too, where the role gpufleet.llamacpp.llamacpp_host puts it"
        module.fail_json(msg=missing_required_lib(distribution, reason=where))
