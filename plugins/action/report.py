# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``report``: print on the control node what earlier tasks found on all hosts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils import _logs, _memory, _rollout, _status
from ..plugin_utils._results import instances_of

OPTIONS = {
    "kind": {"type": "str", "choices": ["logs", "memory", "rollout", "status"], "required": True},
    "hosts": {"type": "dict", "required": True},
    "output": {"type": "path"},
}


class ActionModule(ActionBase):
    """Ansible's entry point."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Print the report; return its lines, and for the status and the logs what was written."""
        dummy, options = self.validate_argument_spec(argument_spec=OPTIONS)
        result: dict[str, Any] = super().run(tmp, task_vars)
        report = {"logs": self._logs, "memory": self._memory, "rollout": self._rollout, "status": self._status}
        output = os.path.expanduser(options["output"]) if options["output"] else None
        try:
            return {**result, "changed": False, **report[options["kind"]](options["hosts"], output)}
        except OSError as error:
            return {**result, "failed": True, "msg": f"output: {error.filename}: {error.strerror}."}

    def _memory(self, hosts: Mapping[str, Any], output: str | None) -> dict[str, Any]:
        return {"lines": self._print(_memory.table(hosts))}

    def _rollout(self, hosts: Mapping[str, Any], output: str | None) -> dict[str, Any]:
        return {"lines": self._print(_rollout.table(hosts, self._task.check_mode, _columns()))}

    def _status(self, hosts: Mapping[str, Any], output: str | None) -> dict[str, Any]:
        found = {host: instances_of(result) for host, result in hosts.items()}
        lines = self._print(_status.table(found, _columns()))
        if output:
            with open(output, "w", encoding="utf-8") as file:
                json.dump(found, file, indent=2, sort_keys=True)
                file.write("\n")
        return {"lines": lines, "hosts": found}

    def _logs(self, hosts: Mapping[str, Any], output: str | None) -> dict[str, Any]:
        found = {host: instances_of(result) for host, result in hosts.items()}
        lines = self._print(_logs.lines(found))
        files = []
        if output:
            os.makedirs(output, exist_ok=True)
            for name, content in _logs.files(found).items():
                files.append(os.path.join(output, name))
                with open(files[-1], "w", encoding="utf-8") as file:
                    file.write(content)
        self._print([f"written: {path}" for path in files])
        return {"lines": lines, "files": files}

    def _print(self, lines: Sequence[str]) -> Sequence[str]:
        """Print the lines as they are, unless the task has no_log; return them."""
        if lines and not self._task.no_log:
            self._display.display("\n".join(lines))
        return lines


def _columns() -> int:
    return shutil.get_terminal_size().columns
