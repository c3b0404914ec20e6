# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``memory_table``: what the servers that are to be started take of the GPUs, printed as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plugin_utils._memory import table
from ..plugin_utils._printing import PrintingAction


class ActionModule(PrintingAction):
    """Ansible's entry point."""

    OPTIONS = {"hosts": {"type": "dict", "required": True}}

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Print the table; returns its lines."""
        lines = table(options["hosts"])
        if lines:
            self.show(lines)
        return {"lines": lines}
