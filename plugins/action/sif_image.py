# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``sif_image``: the module of that name, showing how far it is while it brings an image."""

from __future__ import annotations

from ..plugin_utils._progress import PullAction


class ActionModule(PullAction):
    """Ansible's entry point."""
