# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Managers: what they write, what they understand, which one is chosen. The lab tries their commands."""

from __future__ import annotations

import ast
import configparser
import contextlib
import dataclasses
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import manager
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.manager import supervisor, systemd
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.options import INSTANCE

NASTY = (
    "$HOME",
    "${X}",
    "%i",
    "%%",
    "`id`",
    "$(id)",
    "'",
    '"',
    "\\",
    "a b",
    "",
    "*",
    '{"a": "b"}',
    "line\nbreak",
    "\t",
    "ü",
)


class Commands:
    """Stands in for module.run_command: answers by the first word that matches, and remembers what was asked."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers = answers
        self.seen: list[list[str]] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        self.seen.append(argv)
        return next((self.answers[word] for word in argv if word in self.answers), (0, "", ""))

    def verbs(self) -> list[str]:
        """What was done, without the words that every command of a manager begins with."""
        known = [
            "show",
            "daemon-reload",
            "enable",
            "disable",
            "start",
            "stop",
            "reset-failed",
            "clean",
        ]
        return [word for argv in self.seen for word in argv if word in known]


def unit(**changes: Any) -> manager.Unit:
    value = manager.Unit(
        name="4403-glm-4.7",
        description="llama-server 4403",
        command=("/usr/bin/python3", "-I", "/h/4403-glm-4.7/runner.py", "/h/4403-glm-4.7"),
        directory="/h/4403-glm-4.7",
        user="operator",
        enabled=True,
        start_timeout=300,
        stop_timeout=90,
        mounts=("/data/models", "/h/4403-glm-4.7"),
    )
    return dataclasses.replace(value, **changes)


def directives(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(name, []).append(value)
    return found


def as_systemd_reads(line: str) -> list[str]:
    """The words of a command line by the rules of systemd.service(5), "Command lines"; unknown escapes fail."""
    meaning = {"\\\\": "\\", '\\"': '"', "\\n": "\n", "\\r": "\r", "\\t": "\t", "%%": "%", "$$": "$"}
    words = re.findall(r'"((?:[^"\\]|\\.)*)"(?: |$)', line)
    assert " ".join(f'"{word}"' for word in words) == line
    return [re.sub(r"\\.|%.|\$.", lambda match: meaning[match.group()], word) for word in words]


# --- systemd


def test_systemd_command_survives_quoting() -> None:
    text = systemd.Systemd(Commands(), "/h").render(unit(command=NASTY))
    assert as_systemd_reads(directives(text)["ExecStart"][0]) == list(NASTY)


def test_systemd_unit() -> None:
    text = systemd.Systemd(Commands(), "/h").render(
        unit(description="100% $HOME", mounts=("/data/my models", "/a%b$c"))
    )
    found = directives(text)
    assert found["Description"] == ["100%% $HOME"]
    assert found["RequiresMountsFor"] == ['"/data/my models"', '"/a%%b$c"']
    assert found["User"] == ["operator"]
    assert found["RuntimeDirectory"] == ["llamacpp-4403-glm-4.7"]
    assert found["KillMode"] == ["mixed"]
    assert int(found["TimeoutStopSec"][0]) > 90
    assert found["TimeoutStartSec"] == ["300"]
    assert found["WantedBy"] == ["multi-user.target"]
    assert found["RestartPreventExitStatus"] == ["78"]
    # These break Apptainer or CUDA; before one is added, it has to be tried with both.
    assert not {"PrivateDevices", "DevicePolicy", "SystemCallFilter", "ProtectHome", "MemoryDenyWriteExecute"} & set(
        found
    )
    assert found["RestrictNamespaces"] != ["yes"]


@pytest.mark.parametrize("user", [None, "", "root", "0"])
def test_systemd_never_runs_a_server_as_root(user: str | None) -> None:
    with pytest.raises(manager.ManagerError, match="unprivileged user"):
        systemd.Systemd(Commands(), "/h").render(unit(user=user))


def test_systemd_user_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/o")
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    mine = systemd.SystemdUser(Commands(), "/h")
    assert list(mine.plan_files(unit())) == ["/home/o/.config/systemd/user/llamacpp-4403-glm-4.7.service"]
    found = directives(mine.render(unit(user=None)))
    assert found["WantedBy"] == ["default.target"]
    assert not {"User", "After", "RequiresMountsFor", "CapabilityBoundingSet"} & set(found)
    assert mine.commands(unit())["stop"] == [
        "env",
        "XDG_RUNTIME_DIR=/run/user/1234",
        "systemctl",
        "--user",
        "stop",
        "llamacpp-4403-glm-4.7.service",
    ]


def test_logs_come_from_the_journal_or_the_file() -> None:
    root = systemd.Systemd(Commands(), "/h")
    assert root.commands(unit())["logs"][0] == "journalctl"
    assert root.commands(unit(log="/h/x.log"))["logs"] == ["tail", "-n", "100", "-F", "/h/x.log"]


@pytest.mark.parametrize(
    ("shown", "state"),
    [
        (
            "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nMainPID=42\nUnitFileState=enabled\n",
            manager.UnitState(True, True, True, 42, False, "active (running)"),
        ),
        (
            "MainPID=0\nResult=exit-code\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nUnitFileState=disabled",
            manager.UnitState(True, False, True, None, False, "activating (auto-restart), exit-code"),
        ),
        (
            "MainPID=0\nResult=watchdog\nLoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled",
            manager.UnitState(True, True, False, None, True, "failed (failed), watchdog"),
        ),
        (
            "MainPID=0\nResult=success\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=",
            manager.UnitState(False, False, False, None, False, "inactive (dead)"),
        ),
        ("", manager.UnitState(detail=" ()")),
    ],
)
def test_output_of_systemctl_show(shown: str, state: manager.UnitState) -> None:
    assert systemd.parse_show(shown) == state


def test_systemd_reloads_only_for_a_change(tmp_path: Path) -> None:
    run = Commands(show=(0, "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=7", ""))
    root = systemd.Systemd(run, "/h")
    root.folder = str(tmp_path)
    path = root.path(unit())
    assert root.differs(unit()) == [f"{path} is missing", "it does not start at boot"]
    assert run.seen == []
    root.install(unit())
    assert run.verbs() == ["daemon-reload", "enable"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    (tmp_path / "multi-user.target.wants").mkdir()
    os.symlink(path, tmp_path / "multi-user.target.wants" / os.path.basename(path))
    run.seen.clear()
    assert root.differs(unit()) == []
    root.install(unit())
    assert run.seen == []
    assert root.differs(unit(enabled=False, start_timeout=1)) == [f"{path} differs", "it starts at boot"]
    root.start(unit())
    assert run.verbs() == ["reset-failed", "start"]
    assert "--no-block" in run.seen[-1]
    run.seen.clear()
    root.remove(unit())
    assert run.verbs() == ["show", "stop", "reset-failed", "clean", "disable", "daemon-reload"]
    assert not os.path.exists(path)


def test_systemd_does_not_stop_what_is_not_there(tmp_path: Path) -> None:
    run = Commands(show=(0, "LoadState=not-found\nActiveState=inactive", ""))
    root = systemd.Systemd(run, "/h")
    root.folder = str(tmp_path)
    root.remove(unit())
    assert run.verbs() == ["show", "clean"]


def test_the_output_of_a_failing_command_is_in_the_error() -> None:
    run = Commands(start=(1, "", "Failed to start\nUnit is masked.\n"))
    with pytest.raises(manager.ManagerError, match=r"exit status 1: Failed to start / Unit is masked\."):
        systemd.Systemd(run, "/h").start(unit())


@pytest.mark.parametrize(
    "changes",
    [{"name": "../x"}, {"name": ""}, {"description": "a\nExecStart=b"}, {"mounts": ("/a\n",)}, {"command": ("\0",)}],
)
def test_values_that_no_unit_can_contain(changes: dict[str, Any]) -> None:
    with pytest.raises(manager.ManagerError):
        unit(**changes)


# --- supervisor


def program(text: bytes, name: str) -> dict[str, str]:
    """A section as supervisord reads it: its parser's settings, then %-expansion."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text.decode())
    return {key: value % {"here": "/h"} for key, value in parser.items(name)}


def test_supervisor_command_survives_quoting() -> None:
    words = tuple(word for word in NASTY if "\n" not in word)
    mine = supervisor.Supervisor(Commands(), "/h")
    files = mine.plan_files(unit(command=words, directory="/h/100% of it"))
    assert list(files) == ["/h/supervisord.conf", "/h/supervisor.d/4403-glm-4.7.conf"]
    found = program(files["/h/supervisor.d/4403-glm-4.7.conf"], "program:4403-glm-4.7")
    assert shlex.split(found["command"]) == list(words)
    assert found["directory"] == "/h/100% of it"
    assert found["autostart"] == "true"
    assert int(found["stopwaitsecs"]) > 90
    assert found["exitcodes"] == "78"
    assert found["stopasgroup"] == found["killasgroup"] == "false"
    main = program(files["/h/supervisord.conf"], "supervisorctl")
    assert main["serverurl"] == "unix:///h/run/supervisor.sock"


@pytest.mark.parametrize("word", ["a ;b", "a #b", "a\nb"])
def test_supervisor_refuses_what_it_would_take_for_a_comment(word: str) -> None:
    with pytest.raises(manager.ManagerError, match="supervisord cannot read"):
        supervisor.Supervisor(Commands(), "/h").plan_files(unit(command=(word,)))


def test_supervisor_home_fits_a_socket() -> None:
    longest = "/" + "h" * (supervisor.LONGEST_HOME - 1)
    supervisor.Supervisor(Commands(), longest)
    assert len(longest + "/run/supervisor.sock.4194304") == 107
    with pytest.raises(manager.ManagerError, match="Choose a shorter home"):
        supervisor.Supervisor(Commands(), longest + "h")


@pytest.mark.parametrize(
    ("info", "state"),
    [
        (
            {"statename": "RUNNING", "pid": 42, "description": "pid 42, uptime 0:00:05"},
            manager.UnitState(True, False, True, 42, False, "RUNNING pid 42, uptime 0:00:05"),
        ),
        (
            {"statename": "STOPPED", "pid": 0, "description": "Not started"},
            manager.UnitState(True, detail="STOPPED Not started"),
        ),
        ({"statename": "STARTING", "description": ""}, manager.UnitState(True, active=True, detail="STARTING")),
        (
            {"statename": "FATAL", "description": "Exited too quickly"},
            manager.UnitState(True, failed=True, detail="FATAL Exited too quickly"),
        ),
        ({}, manager.UnitState(detail="supervisord does not have it")),
    ],
)
def test_answers_of_supervisord(info: dict[str, Any], state: manager.UnitState) -> None:
    assert supervisor.state_of(info) == state


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the two programs of supervisor, and a host that has crontab."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name in ("supervisord", "supervisorctl"):
        (tmp_path / "venv/bin" / name).write_text("")
        (tmp_path / "venv/bin" / name).chmod(0o755)
    monkeypatch.setattr(supervisor.shutil, "which", lambda name: "/usr/bin/" + name)
    return tmp_path


class Crontab(Commands):
    """A host's crontab command besides."""

    lines: str | None = None

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv == ["crontab", "-l"]:
            return (1, "", "no crontab for operator") if self.lines is None else (0, self.lines, "")
        if argv[0] == "crontab":
            self.lines = Path(argv[1]).read_text()
        return super().__call__(argv)


def test_supervisor_keeps_the_operators_crontab(home: Path) -> None:
    run = Crontab()
    mine = supervisor.Supervisor(run, str(home))
    line = f"@reboot {home}/venv/bin/supervisord -c {home}/supervisord.conf # gpufleet.llamacpp in {home}"
    mine.write_crontab(True)
    assert run.lines == line + "\n"
    others = f"# mine\n0 * * * * backup\n{line}2\n"
    run.lines = others + line + "\n@daily x\n"
    run.seen.clear()
    mine.write_crontab(True)
    assert run.seen == []
    run.lines = others + f"@reboot old # gpufleet.llamacpp in {home}\n@daily x\n"
    mine.write_crontab(True)
    assert run.lines == others + "@daily x\n" + line + "\n"
    mine.write_crontab(False)
    assert run.lines == others + "@daily x\n"
    assert os.listdir(home / "run") == []


def test_supervisor_boot_line_is_quoted_for_cron_and_its_shell() -> None:
    line = supervisor.Supervisor(Commands(), "/h $(id) 100%/x").boot_line()
    assert line.startswith("@reboot ")
    read_by_cron = line[len("@reboot ") :].replace(r"\%", "%")
    assert "%" not in line.replace(r"\%", "")
    assert shlex.split(read_by_cron, comments=True) == [
        "/h $(id) 100%/x/venv/bin/supervisord",
        "-c",
        "/h $(id) 100%/x/supervisord.conf",
    ]


def test_supervisor_without_cron(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.shutil, "which", lambda name: None)
    mine = supervisor.Supervisor(Commands(), str(home))
    mine.install(unit(enabled=False))
    with pytest.raises(manager.ManagerError, match="crontab"):
        mine.install(unit())


def test_supervisor_an_unreadable_crontab_is_not_overwritten(home: Path) -> None:
    run = Commands(crontab=(1, "", "You (operator) are not allowed to use this program (crontab)"))
    with pytest.raises(manager.ManagerError, match="not allowed"):
        supervisor.Supervisor(run, str(home)).write_crontab(True)


class Host(Crontab):
    """A host on which supervisord really runs."""

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0].endswith("/supervisord"):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr
        return super().__call__(argv)


@pytest.fixture
def mine(home: Path) -> Iterator[supervisor.Supervisor]:
    """A manager over a real supervisord, which ends with the test."""
    pytest.importorskip("supervisor")
    program = f"#!{sys.executable}\nfrom supervisor.supervisord import main\nmain()\n"
    (home / "venv/bin/supervisord").write_text(program)
    (home / "one").mkdir()
    value = supervisor.Supervisor(Host(), str(home))
    yield value
    with contextlib.suppress(supervisor.Unreachable):
        value.supervisord.shut_down()


def sleeper(mine: supervisor.Supervisor, seconds: str, **changes: Any) -> manager.Unit:
    command = ("/usr/bin/env", "sleep", seconds)
    return unit(name="one", directory=f"{mine.home}/one", command=command, user=None, **changes)


def running(mine: supervisor.Supervisor, one: manager.Unit) -> int:
    """The pid of the unit, which runs what is wanted."""
    state = mine.observe(one)
    assert state.active and state.pid
    deadline = time.monotonic() + 10
    while supervisor.command(state.pid) != ["sleep", one.command[-1]]:  # not forked, or not become it yet
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return state.pid


def test_supervisor_life(mine: supervisor.Supervisor) -> None:
    one, run = sleeper(mine, "1000"), mine.run
    assert isinstance(run, Host)
    assert mine.observe(one) == manager.UnitState(detail="not installed")
    assert len(mine.differs(one)) == 3
    mine.install(one)
    assert mine.differs(one) == []
    assert mine.differs(dataclasses.replace(one, enabled=False))
    assert not mine.observe(one).active
    mine.start(one)
    first = running(mine, one)
    mine.start(one)
    assert running(mine, one) == first
    mine.stop(one)
    assert (mine.observe(one).active, mine.observe(one).installed) == (False, True)
    changed = sleeper(mine, "2000")
    mine.install(changed)
    mine.start(changed)
    assert running(mine, changed) != first
    Path(mine.home, "supervisor.d/other.conf").write_text("")
    mine.remove(changed)
    assert "gpufleet" in (run.lines or "")
    assert mine.supervisord.info("one") == {}
    Path(mine.home, "supervisor.d/other.conf").unlink()
    mine.install(changed)
    mine.remove(changed)
    assert run.lines == ""
    assert not Path(mine.home, "supervisord.conf").exists()
    assert not Path(mine.home, "run/supervisor.sock").exists()
    assert not Path(mine.home, ".supervisord.lock").exists()


def test_supervisor_restarts_a_changed_unit(mine: supervisor.Supervisor) -> None:
    one = sleeper(mine, "1000")
    mine.install(one)
    mine.start(one)
    first = running(mine, one)
    changed = sleeper(mine, "2000")
    mine.install(changed)
    assert running(mine, one) == first
    mine.start(changed)
    assert running(mine, changed) != first


def test_supervisor_does_not_lose_the_term_to_a_program_that_is_just_being_started(mine: supervisor.Supervisor) -> None:
    one = dataclasses.replace(sleeper(mine, "1000"), enabled=False)
    mine.install(one)
    mine.start(one)
    for attempt in range(10):
        begin = time.monotonic()
        mine.stop(one)
        assert time.monotonic() - begin < 5, attempt
        mine.supervisord.start("one")


def test_supervisor_stop_is_bounded(mine: supervisor.Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    one = dataclasses.replace(
        sleeper(mine, ""),
        command=(sys.executable, "-c", "import signal, time; signal.signal(15, lambda *x: 0); time.sleep(60)"),
    )
    mine.install(one)
    mine.start(one)
    time.sleep(1)
    monkeypatch.setattr(supervisor, "stop_limit", lambda unit: 0.3)
    monkeypatch.setattr(supervisor, "STOP_MARGIN", 0.3)
    with pytest.raises(manager.ManagerError, match="did not stop one within 0 s"):
        mine.stop(one)
    os.kill(mine.observe(one).pid or 0, signal.SIGKILL)


def test_supervisor_that_is_not_there(home: Path) -> None:
    (home / "venv/bin/supervisord").unlink()
    mine = supervisor.Supervisor(Crontab(), str(home))
    mine.install(unit())
    mine.stop(unit())
    assert "supervisord does not answer at" in mine.observe(unit()).detail
    with pytest.raises(manager.ManagerError, match="Run the role gpufleet.llamacpp.llamacpp_host"):
        mine.start(unit())


def test_supervisor_reports_why_a_program_cannot_start(mine: supervisor.Supervisor) -> None:
    one = dataclasses.replace(sleeper(mine, ""), command=("/nowhere/python3",), enabled=False)
    mine.install(one)
    with pytest.raises(manager.ManagerError, match="supervisord did not start one: "):
        mine.start(one)


def test_supervisor_a_runner_that_outlived_supervisord_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = supervisor.Supervisor(Crontab(), str(home))
    one = unit(directory=str(home))
    mine.install(one)
    me = os.getpid()
    found = supervisor.runner.process(me)
    assert found is not None
    state = {"runner_pid": me, "runner_start": found.start}
    monkeypatch.setattr(supervisor.runner, "former_run", lambda path: state if path == f"{home}/running.json" else {})
    assert mine.observe(one).active
    assert mine.observe(one).pid == me
    state["runner_start"] -= 1
    assert not mine.observe(one).active


def test_supervisor_stop_ends_what_supervisord_cannot(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = supervisor.Supervisor(Crontab(), str(home))
    container = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        state = {"container_pid": container.pid}
        monkeypatch.setattr(supervisor.runner, "former_run", lambda path: state)
        mine.stop(unit())
        assert container.wait(10) == -signal.SIGTERM
        assert bystander.poll() is None
    finally:
        for process in (container, bystander):
            process.kill()
            process.wait()


# --- which one


@pytest.mark.parametrize(
    ("requested", "root", "booted", "lingers", "chosen"),
    [
        ("auto", True, True, False, "systemd"),
        ("auto", True, False, False, "not the init"),
        ("auto", False, True, True, "systemd_user"),
        ("auto", False, True, False, "supervisor"),
        ("auto", False, False, False, "supervisor"),
        ("systemd", True, True, False, "systemd"),
        ("systemd", False, True, True, "needs root"),
        ("systemd", True, False, False, "not the init"),
        ("systemd_user", False, True, True, "systemd_user"),
        ("systemd_user", False, True, False, "does not linger"),
        ("systemd_user", True, True, True, "as root"),
        ("supervisor", False, True, True, "supervisor"),
        ("supervisor", True, True, False, "supervisor"),
        ("runit", False, True, True, "no manager 'runit'"),
    ],
)
def test_select(
    requested: str,
    root: bool,
    booted: bool,
    lingers: bool,
    chosen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "linger").mkdir()
    (tmp_path / "run/systemd").mkdir(parents=True)
    (tmp_path / "run/systemd/private").touch()
    if lingers:
        (tmp_path / "linger/operator").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(systemd, "user_name", lambda uid: "operator")
    monkeypatch.setattr(systemd, "BOOTED", str(tmp_path) if booted else str(tmp_path / "no"))
    monkeypatch.setattr(systemd, "LINGERING", str(tmp_path / "linger"))
    monkeypatch.setattr(systemd, "runtime_folder", lambda: str(tmp_path / "run"))
    run = Commands()
    try:
        found = manager.select(requested, home="/h", run=run)
    except manager.ManagerError as error:
        assert chosen in str(error)
    else:
        assert found.name == chosen
        lingers_not = "the user operator does not linger (loginctl enable-linger operator)"
        because = lingers_not if booted else "systemd is not the init of this host"
        why = f"supervisor keeps it running because {because}"
        assert found.why == (why if (requested, chosen) == ("auto", "supervisor") else "")
    assert run.seen == []


def test_select_wants_a_running_user_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "operator").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(systemd, "user_name", lambda uid: "operator")
    monkeypatch.setattr(systemd, "BOOTED", str(tmp_path))
    monkeypatch.setattr(systemd, "LINGERING", str(tmp_path))
    monkeypatch.setattr(systemd, "runtime_folder", lambda: str(tmp_path / "gone"))
    with pytest.raises(manager.ManagerError, match="is not running"):
        manager.select("systemd_user", home="/h", run=Commands())


def test_the_option_can_be_auto_and_every_manager() -> None:
    assert manager.CHOICES == ("auto", "systemd", "systemd_user", "supervisor")
    assert INSTANCE["manager"]["choices"] == list(manager.CHOICES)
    assert all(kind.name == name for name, kind in manager.MANAGERS.items())


@pytest.mark.parametrize(
    ("name", "user", "folder", "journal", "setuid", "bus"),
    [
        ("systemd", "llamacpp", "/run/llamacpp-4403", True, False, False),
        ("systemd_user", None, "/h/4403", False, False, True),
        ("supervisor", None, "/h/4403", False, True, False),
    ],
)
def test_what_a_manager_can_do(
    name: str, user: str | None, folder: str, journal: bool, setuid: bool, bus: bool
) -> None:
    kind = manager.MANAGERS[name]
    assert kind.runs_as("llamacpp") == user
    assert kind.state_dir("/h/4403") == folder
    assert (kind.has_journal, not kind.gains_no_privileges, kind.needs_user_bus) == (journal, setuid, bus)


def names_in(source: str) -> list[int]:
    """The lines of a program in which the name of a manager stands as a value of its own."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [node.lineno for node in nodes if node.value in tuple(manager.MANAGERS)]


@pytest.mark.parametrize(
    "source", ['x.name == "systemd"', 'UNITS = ("systemd_user",)', 'kind({"manager": "supervisor"})']
)
def test_a_managers_name_is_found(source: str) -> None:
    assert names_in(source) == [1]


def test_nobody_outside_this_folder_knows_a_managers_name() -> None:
    folder = Path(manager.__file__).parent
    programs = [path for path in folder.parents[2].rglob("*.py") if folder not in path.parents]
    assert len(programs) > 100
    assert [f"{path}:{line}" for path in programs for line in names_in(path.read_text())] == []
