# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``gguf_model``: the module of that name, showing how far it is while it brings a model."""

from __future__ import annotations

from ..plugin_utils._progress import PullAction


class ActionModule(PullAction):
    """Ansible's entry point."""
