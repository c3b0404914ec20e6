# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``status_table``: what llamacpp_instance_info told of every host, printed as one table."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._status import table
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._told import told

display = Display()


class ActionModule(ActionBase):
    """Ansible's entry point. Works on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Print the table; returns its lines, and the instances of every host."""
        dummy, options = self.validate_argument_spec(
            argument_spec={"results": {"type": "dict", "required": True}, "output": {"type": "path"}}
        )
        result: dict[str, Any] = super().run(tmp, task_vars)
        hosts = {str(host): told(said) for host, said in options["results"].items()}
        lines = table(hosts, shutil.get_terminal_size().columns)
        if not self._task.no_log:
            display.display("\n".join(lines))
        if options["output"]:
            try:
                with open(os.path.expanduser(options["output"]), "w", encoding="utf-8") as file:
                    json.dump(hosts, file, indent=2, sort_keys=True)
                    file.write("\n")
            except OSError as error:
                return {**result, "failed": True, "msg": f"output: {options['output']}: {error.strerror}."}
        return {**result, "changed": False, "lines": lines, "hosts": hosts}
