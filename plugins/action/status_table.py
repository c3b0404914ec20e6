# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``status_table``: what llamacpp_instance_info told of every host, printed as one table."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from ..plugin_utils._printing import PrintingAction
from ..plugin_utils._status import table
from ..plugin_utils._told import told


class ActionModule(PrintingAction):
    """Ansible's entry point."""

    OPTIONS = {"results": {"type": "dict", "required": True}, "output": {"type": "path"}}

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Print the table, and write it to a file; returns its lines, and the instances of every host."""
        hosts = {str(host): told(said) for host, said in options["results"].items()}
        lines = table(hosts, shutil.get_terminal_size().columns)
        self.show(lines)
        if options["output"]:
            with open(os.path.expanduser(options["output"]), "w", encoding="utf-8") as file:
                json.dump(hosts, file, indent=2, sort_keys=True)
                file.write("\n")
        return {"lines": lines, "hosts": hosts}
