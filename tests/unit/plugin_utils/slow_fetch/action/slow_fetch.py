# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of the module slow_fetch. Its result has what the action left behind in Ansible's objects."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._progress import FetchAction


class ActionModule(FetchAction):
    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        return {
            **result,
            "async_val": self._task.async_val,
            "environment": self._task.environment,
            "async_dir": self._connection._shell.get_option("async_dir"),
        }
