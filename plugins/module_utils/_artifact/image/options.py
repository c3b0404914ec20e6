# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of sif_image, as Ansible validates them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from typing import Any

IMAGE: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
    "src": {"type": "str"},
    "sha256": {"type": "str"},
    "pull": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
    "verify": {"type": "str", "choices": ["changed", "always"], "default": "changed"},
    "verify_signature": {"type": "bool", "default": False},
    "public_key": {"type": "path"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "auth_file": {"type": "path"},
    "no_https": {"type": "bool", "default": False},
    "ca_path": {"type": "path"},
    "connections": {"type": "int", "default": 8},
    "max_rate": {"type": "str"},
    "home": {"type": "path"},
}
REQUIRED_IF = [["verify_signature", True, ["public_key"]]]
TOGETHER = [["username", "password"]]
EXCLUSIVE = [["username", "auth_file"]]
