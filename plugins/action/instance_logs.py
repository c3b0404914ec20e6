# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``instance_logs``: the last lines of the logs that llamacpp_instance_info told of every host, printed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..plugin_utils._logs import files, lines
from ..plugin_utils._printing import PrintingAction
from ..plugin_utils._told import told


class ActionModule(PrintingAction):
    """Ansible's entry point."""

    OPTIONS = {"results": {"type": "dict", "required": True}, "output": {"type": "path"}}

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Print the lines, or write them to files; returns the lines and the files' paths."""
        hosts = {str(host): told(said) for host, said in options["results"].items()}
        shown, written = lines(hosts), []
        if options["output"]:
            folder = os.path.expanduser(options["output"])
            os.makedirs(folder, exist_ok=True)
            for name, content in files(hosts).items():
                written.append(os.path.join(folder, name))
                with open(written[-1], "w", encoding="utf-8") as file:
                    file.write(content)
        self.show([*shown, *(f"written: {path}" for path in written)])
        return {"lines": shown, "files": written}
