# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of gguf_model, as Ansible validates them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from typing import Any

MODEL: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
    "repo": {"type": "str"},
    "file": {"type": "str"},
    "revision": {"type": "str", "default": "main"},
    "endpoint": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path", "no_log": False},
    "offline": {"type": "bool"},
    "url": {"type": "str"},
    "src": {"type": "path"},
    "mirrors": {"type": "list", "elements": "str", "default": []},
    "connections": {"type": "int", "default": 8},
    "max_rate": {"type": "bytes"},
    "ca_path": {"type": "path"},
    "sha256": {"type": "list", "elements": "str", "default": []},
    "verify": {"type": "str", "choices": ["changed", "always", "never"], "default": "changed"},
    "home": {"type": "path"},
}
EXCLUSIVE = [["token", "token_file"]]
TOGETHER = [["repo", "file"]]
