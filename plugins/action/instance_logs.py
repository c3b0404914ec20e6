# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``instance_logs``: the last lines of the logs that llamacpp_instance_info told of every host, printed."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._logs import files, lines
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._told import told

display = Display()


class ActionModule(ActionBase):
    """Ansible's entry point. Works on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Print the lines, or write them to files; returns the lines and the files' paths."""
        dummy, options = self.validate_argument_spec(
            argument_spec={"results": {"type": "dict", "required": True}, "output": {"type": "path"}}
        )
        result: dict[str, Any] = super().run(tmp, task_vars)
        hosts = {str(host): told(said) for host, said in options["results"].items()}
        shown, written = lines(hosts), []
        if options["output"]:
            folder = os.path.expanduser(options["output"])
            try:
                os.makedirs(folder, exist_ok=True)
                for name, content in files(hosts).items():
                    written.append(os.path.join(folder, name))
                    with open(written[-1], "w", encoding="utf-8") as file:
                        file.write(content)
            except OSError as error:
                return {**result, "failed": True, "msg": f"output: {error.filename or folder}: {error.strerror}."}
        if not self._task.no_log:
            display.display("\n".join([*shown, *(f"written: {path}" for path in written)]))
        return {**result, "changed": False, "lines": shown, "files": written}
