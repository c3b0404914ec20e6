# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as processes of the host: what Ansible sends to the host, started without Ansible.

A call is one process that a test can kill. It also costs a fraction of a playbook's time.
"""

from __future__ import annotations

import json
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from testinfra.host import Host

# Options for a call in check mode that changes nothing.
HARMLESS: dict[str, dict[str, Any]] = {
    "gguf_model": {"path": "/data/none", "state": "absent"},
    "sif_image": {"path": "/data/none", "state": "absent"},
    "llamacpp_instance": {"name": "none", "state": "absent"},
}


class Running:
    """A module that runs on the host, all of its processes in a session of their own."""

    def __init__(self, login: Host, folder: str) -> None:
        self._login = login
        self._folder = folder
        self.pid = int(login.check_output(f"until test -s {folder}/pid; do sleep 0.02; done; cat {folder}/pid"))

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False if no process is left."""
        return self._login.run(f"kill -{number.value} -- -{self.pid}").rc == 0

    def result(self, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the end of the module, and return its result; without ``msg`` if it was killed."""
        self._login.run(f"timeout {seconds} bash -c 'while kill -0 -- -{self.pid}; do sleep 0.05; done' 2>/dev/null")
        out = self._login.check_output(f"cat {self._folder}/out {self._folder}/err")
        try:
            answer: dict[str, Any] = json.loads(out)
        except ValueError:
            return {"failed": True, "msg": "", "module_stderr": out}
        if "warnings" in answer:  # Ansible makes a text of each
            answer["warnings"] = [warning["event"]["msg"] for warning in answer["warnings"]]
        return answer


class Direct:
    """Starts modules on one host. ``play`` runs ansible-playbook with such arguments and such a variable environment.

    Ansible leaves a module on the host if ANSIBLE_KEEP_REMOTE_FILES is set. The file unpacks itself with "explode"
    and then runs with other arguments with "execute".
    """

    def __init__(self, login: Host, host_name: str, play: Callable[[Iterable[str], dict[str, str]], None]) -> None:
        self._login = login
        self._home = login.check_output("pwd")
        login.check_output("rm -rf ~/.ansible/tmp ~/direct")
        calls = [{f"gpufleet.llamacpp.{name}": options} for name, options in HARMLESS.items()]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as playbook:
            json.dump([{"hosts": host_name, "gather_facts": False, "tasks": calls}], playbook)
            playbook.flush()
            play(["--check", playbook.name], {"ANSIBLE_KEEP_REMOTE_FILES": "1"})
        for name in HARMLESS:
            login.check_output(
                f"mkdir -p ~/direct/{name} && cd ~/direct/{name}"
                f" && find ~/.ansible/tmp -name AnsiballZ_{name}.py -exec mv {{}} module.py \\;"
                " && python3 module.py explode && python3 -m compileall -q debug_dir"
            )
        login.check_output("rm -rf ~/.ansible/tmp")
        first = json.loads(login.check_output("cat ~/direct/gguf_model/debug_dir/args"))["ANSIBLE_MODULE_ARGS"]
        self._settings = {key: value for key, value in first.items() if key.startswith("_ansible_")}

    def start(self, name: str, /, check: bool = False, **options: Any) -> Running:
        """Start a module; do not wait for it."""
        folder = f"direct/{name}.{secrets.token_hex(4)}"
        settings = {**self._settings, "_ansible_check_mode": check, "_ansible_module_name": f"gpufleet.llamacpp.{name}"}
        settings |= {"_ansible_tmpdir": f"{self._home}/{folder}/tmp"}
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {**settings, **options}})
        # With the times of the files, by which Python knows that what is compiled is not stale.
        self._login.check_output(
            f"cp -a direct/{name} {folder} && cd {folder} && mkdir tmp && printf %s %s > debug_dir/args"
            " && setsid -f sh -c 'echo $$ > pid; exec python3 module.py execute > out 2> err' > /dev/null 2>&1",
            "%s",
            arguments,
        )
        return Running(self._login, folder)

    def run(self, name: str, /, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run a module and return its result, whether it failed or not."""
        return self.start(name, check, **options).result()
