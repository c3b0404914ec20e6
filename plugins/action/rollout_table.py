# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``rollout_table``: where each host of a rollout is, printed as one table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from ..plugin_utils._printing import PrintingAction
from ..plugin_utils._rollout import table


class ActionModule(PrintingAction):
    """Ansible's entry point."""

    OPTIONS = {"hosts": {"type": "dict", "required": True}}

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Print the table; returns its lines."""
        lines = table(options["hosts"], self._task.check_mode, shutil.get_terminal_size().columns)
        self.show(lines)
        return {"lines": lines}
