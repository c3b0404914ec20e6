# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of ansible-playbook, and what they print.

A run is a fork of this process, which has imported Ansible and keeps the modules that Ansible has packed. That saves
half of the processor time of a run. The tests make more than a hundred runs.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Deployed:
    """The outcome of ansible-playbook: its output, the numbers of its recap, and the tasks that changed something.

    The numbers are those of the first host; ``recap`` has those of all hosts.
    """

    output: str = field(repr=False)
    changed: int
    failed: int
    tasks: frozenset[str]
    recap: dict[str, dict[str, int]]
    code: int

    @classmethod
    def read(cls, output: str, code: int) -> Deployed:
        """Read the output."""
        counts = {
            host: {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", numbers)}
            for host, numbers in re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.MULTILINE)
        }
        parts = [part.partition("] ***") for part in output.split("TASK [")[1:]]
        tasks = {name.rpartition(" : ")[2] for name, dummy, lines in parts if "changed: [" in lines}
        first = next(iter(counts.values()), {"changed": 0, "failed": 0})  # a playbook that Ansible refuses has no recap
        return cls(output, first["changed"], first["failed"], frozenset(tasks), counts, code)


@functools.cache
def _program() -> Callable[[Sequence[str]], None]:
    """The program ansible-playbook."""
    from ansible.cli.playbook import main

    program: Callable[[Sequence[str]], None] = main
    return program


class Play:
    """A run of ansible-playbook. Ansible reads the environment only when it is imported, so all runs have the same."""

    def __init__(self, environment: Mapping[str, str], *argv: str) -> None:
        os.environ.update(environment)
        program = _program()
        self._output = os.memfd_create("output")
        self._pid = os.fork()
        if not self._pid:
            self._run(program, ["ansible-playbook", *argv])

    def _run(self, program: Callable[[Sequence[str]], None], argv: Sequence[str]) -> None:
        code = 1
        try:
            for number in (1, 2):
                os.dup2(self._output, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            # Ansible has its own loader for collections.
            for name in [name for name in sys.modules if name.partition(".")[0] == "ansible_collections"]:
                del sys.modules[name]
            program(argv)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            # Without the end of pytest.
            os._exit(code)

    def wait(self) -> Deployed:
        """Wait for its end."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        with open(self._output, encoding="utf-8") as output:
            output.seek(0)
            return Deployed.read(output.read(), code)

    def kill(self) -> None:
        """End it at once."""
        os.kill(self._pid, signal.SIGKILL)
        self.wait()
