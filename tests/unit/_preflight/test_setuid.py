# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A setuid starter and systemd's units, by real files and what apptainer's buildcfg says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.manager import MANAGERS
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import setuid
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem


class Runtime:
    def __init__(self, folder: Path) -> None:
        self.program = "/usr/bin/apptainer"
        self.starter = folder / "apptainer" / "bin" / "starter-suid"
        self.configuration = folder / "apptainer.conf"
        self.starter.parent.mkdir(parents=True)
        self.starter.write_text("")
        self.starter.chmod(0o4755)
        self.configuration.write_text("# allow setuid = no\nallow setuid = yes\n")
        self.told = f"PACKAGE_NAME=apptainer\nLIBEXECDIR={folder}\nAPPTAINER_CONF_FILE={self.configuration}\n"

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        assert argv == [self.program, "buildcfg"]
        return (0, self.told, "") if self.told else (1, "", "unknown command")

    def problems(self, manager: str = "systemd") -> list[Problem]:
        return setuid.check_starter(MANAGERS[manager](self.run, "/h"), self.program, self.run)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    found = Runtime(tmp_path)
    real = os.stat

    def stat_as_root_owns_it(path: str) -> os.stat_result:
        """Only root can make a file of root's; the tests do not run as root everywhere."""
        fields = list(real(path))
        fields[4] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(setuid.os, "stat", stat_as_root_owns_it)
    return found


@pytest.mark.parametrize("manager", ["systemd", "systemd_user"])
def test_a_setuid_starter_is_refused(host: Runtime, manager: str) -> None:
    (problem,) = host.problems(manager)
    assert str(problem).startswith(f"manager: {manager} cannot start a container with this apptainer")
    assert f"the setuid program {host.starter}, and" in problem.text
    assert f"'allow setuid = no' in {host.configuration}" in problem.remedy


def test_where_it_does_not_matter(host: Runtime) -> None:
    assert host.problems("supervisor") == []
    assert setuid.check_starter(MANAGERS["systemd"](host.run, "/h"), None, host.run) == []
    host.configuration.write_text(" allow setuid=no\n")
    assert host.problems() == []
    host.configuration.unlink()
    assert len(host.problems()) == 1
    host.starter.chmod(0o755)
    assert host.problems() == []
    host.starter.unlink()
    assert host.problems() == []


def test_a_runtime_that_does_not_tell(host: Runtime) -> None:
    host.told = ""
    host.program = "/usr/bin/no-such-runtime"
    assert host.problems() == []
