# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``sif_image``: run the module of that name, and show its progress while it fetches an image."""

from __future__ import annotations

from ..plugin_utils._progress import FetchAction


class ActionModule(FetchAction):
    """Ansible's entry point."""
