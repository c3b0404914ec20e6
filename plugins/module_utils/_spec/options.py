# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of llamacpp_instance, as Ansible checks them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from typing import Any

from .._host.manager import CHOICES

INSTANCE: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["started", "restarted", "present", "stopped", "absent"],
        "default": "started",
    },
    "home": {"type": "path"},
    "image": {"type": "str"},
    "image_sha256": {"type": "str"},
    # The path is no secret.
    "image_auth_file": {"type": "path", "no_log": False},
    "image_no_https": {"type": "bool", "default": False},
    "image_ca_path": {"type": "path"},
    "pull": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
    "model": {"type": "path"},
    "alias": {"type": "str"},
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int"},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "gpu_layers": {"type": "str"},
    "context_size": {"type": "int"},
    "threads": {"type": "int"},
    "args": {"type": "list", "elements": "str", "default": []},
    "allow_options": {"type": "list", "elements": "str", "default": []},
    "env": {"type": "dict", "default": {}},
    "binds": {"type": "list", "elements": "str", "default": []},
    # The path is no secret; what is in the file never leaves the host.
    "api_key_file": {"type": "path", "no_log": False},
    "min_build": {"type": "int"},
    "server_path": {"type": "str"},
    "manager": {
        "type": "str",
        "choices": list(CHOICES),
        "default": "auto",
    },
    "user": {"type": "str", "default": "llamacpp"},
    "wait_timeout": {"type": "int"},
    "gate": {"type": "str", "choices": ["health", "completion", "full"], "default": "full"},
    "gate_prompts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "prompt": {"type": "str", "required": True},
            "pattern": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 60},
        },
    },
    # Tokens of a text, and no secret.
    "gate_prompt_tokens": {"type": "int", "no_log": False},
    "max_slowdown": {"type": "str"},
    "drain_timeout": {"type": "int", "default": 60},
    "rollback": {"type": "bool", "default": True},
    "lock_timeout": {"type": "int", "default": 60},
}
