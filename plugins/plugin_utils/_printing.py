# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action that prints, on the controller alone, what earlier tasks learned of all hosts.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class PrintingAction(ActionBase):
    """Ansible's entry point for such an action; what it takes and does is its subclass's."""

    TRANSFERS_FILES = False
    _requires_connection = False
    OPTIONS: Mapping[str, Mapping[str, Any]]

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Check the options, and have it done. Returns what was printed."""
        dummy, options = self.validate_argument_spec(argument_spec=dict(self.OPTIONS))
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            return {**result, "changed": False, **self.told(options)}
        except OSError as error:
            return {**result, "failed": True, "msg": f"output: {error.filename}: {error.strerror}."}

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Print, and return the task's result. Raises OSError where a file cannot be written."""
        raise NotImplementedError

    def show(self, lines: Sequence[str]) -> None:
        """Print the lines as they are, unless the task is to say nothing."""
        if not self._task.no_log:
            display.display("\n".join(lines))
