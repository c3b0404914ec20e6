# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""run.sh: what it shows is what runs, and no value of the operator's can do anything in it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runner
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import run_sh
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.launch import Launch
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_spec

COMMANDS = {
    "prepare": ["true"],
    "start": ["/h/venv/bin/supervisorctl", "start", "x"],
    "stop": ["/h/venv/bin/supervisorctl", "stop", "x"],
    "pid": ["/h/venv/bin/supervisorctl", "pid", "x"],
    "logs": ["tail", "-F", "/h/a b/llama-server.log"],
}

NASTY = [
    "it's",
    'say "x"',
    "two\nlines",
    "two\r\nlines",
    "\n",
    "\ntouch MARK",
    "x\n'\ntouch MARK\n'",
    "$(touch MARK)",
    "`touch MARK`",
    "${HOME}",
    "'; touch MARK; '",
    "'$(touch MARK)\n",
    "\\",
    "\\n",
    "end\\",
    "\\\ntouch MARK",
    "@NAME@",
    "@START@",
    "@X",
    "a b",
    "",
    "*",
    "#",
    "\t",
    "\x1b[31m",
    "ü写",
    '{"a": "b"}',
    "!!",
    "--jinja",
]


def rendered(launch: Launch | None = None, **changes: Any) -> str:
    commands = changes.pop("commands", COMMANDS)
    spec = a_spec(**changes)
    launch = launch or a_launch(**changes)
    return run_sh.render(spec, launch, "supervisor", commands, start_timeout=120, user_bus=False).decode()


def shown(script: str) -> list[str]:
    """The command of the comment block, read as a shell would read it."""
    block = script.partition("one option a line:\n#\n")[2].partition("\n#\n# Added to")[0]
    lines = block.split("\n")
    assert all(line.startswith("#   ") for line in lines)
    words = " ".join(line[4:] for line in lines)
    read = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    return [word.decode() for word in read.stdout.split(b"\0")[:-1]]


def test_bash_understands_it() -> None:
    nasty: dict[str, Any] = {"args": ["--x", *NASTY], "env": {f"A{n}": value for n, value in enumerate(NASTY)}}
    for extra in ({}, nasty):
        subprocess.run(["bash", "-n"], input=rendered(**extra).encode(), check=True)


def test_the_command_that_is_shown_is_the_command_that_runs() -> None:
    launch = a_launch()
    script = rendered(launch)
    assert shown(script) == launch.argv
    block = script.partition("one option a line:\n#\n")[2].partition("\n#\n# Added to")[0]
    assert shlex.split(" ".join(line[4:] for line in block.split("\n"))) == launch.argv
    assert "#     --fit on\n#     --temp 1.0\n" in script
    assert "#     -m /models/GLM-4.7-Flash-UD-Q4_K_XL.gguf\n#     -ngl 99\n" in script


@pytest.mark.parametrize("value", NASTY, ids=repr)
def test_a_value_stays_a_value(tmp_path: Path, value: str) -> None:
    """In the comment, and in everything that bash reads of the script when it runs."""
    changes: dict[str, Any] = {"args": ["--chat-template", value, "last"], "env": {"A": value}}
    state_file = str(tmp_path / "x" / f"running{value.replace('/', '')}.json")
    launch = replace(a_launch(**changes), state_file=state_file)
    script = rendered(launch, **changes)
    assert shown(script) == launch.argv
    (tmp_path / "run.sh").write_text(script, encoding="utf-8", newline="")
    done = subprocess.run(
        ["bash", "run.sh", "status"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "4403-glm-4.7-flash-q4: is not running\n", "")
    assert os.listdir(tmp_path) == ["run.sh"]


@pytest.mark.parametrize("value", NASTY, ids=repr)
def test_the_managers_commands_run_as_they_are(tmp_path: Path, value: str) -> None:
    launch = replace(a_launch(), state_file=str(tmp_path / "running.json"))
    logs = {**COMMANDS, "logs": ["printf", "<%s>", value, "end"]}
    (tmp_path / "run.sh").write_text(rendered(launch, commands=logs), encoding="utf-8", newline="")
    done = subprocess.run(["bash", "run.sh", "logs"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode() == f"<{value}><end>"
    assert os.listdir(tmp_path) == ["run.sh"]


def test_what_was_added_is_explained_where_it_was_added() -> None:
    everything = rendered(api_key_file="/etc/keys")
    explained = everything.partition("Added to what was asked for:\n")[2].partition("\nset -u")[0]
    assert [line.split(":")[0].lstrip("# ") for line in explained.split("\n")] == [name for name, dummy in run_sh.ADDED]
    for name in dict(run_sh.ADDED):
        assert name in everything.partition("# Added to")[0]
    assert "CUDA_DEVICE_ORDER" not in rendered(gpus=[])


def test_every_place_is_filled_in() -> None:
    assert re.findall(r"@[A-Z_]+@", rendered()) == []


def test_the_users_bus() -> None:
    spec, launch = a_spec(), a_launch()
    with_bus = run_sh.render(spec, launch, "systemd_user", COMMANDS, start_timeout=1, user_bus=True).decode()
    assert 'export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"' in with_bus
    assert "XDG_RUNTIME_DIR" not in rendered()


def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(script), *words], capture_output=True, check=False, text=True)


@pytest.mark.parametrize("words", [(), ("help",), ("--version",)])
def test_an_unknown_word(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "run.sh").write_text(rendered())
    done = run(tmp_path / "run.sh", *words)
    assert done.returncode == 2
    assert done.stderr.endswith("start|stop|restart|status|logs\n")


def alive(pid: int) -> tuple[int, int]:
    entry = runner.process(pid)
    assert entry
    return pid, entry.start


def test_status_believes_a_pid_only_with_its_start(tmp_path: Path) -> None:
    launch = replace(a_launch(), state_file=str(tmp_path / "running.json"), url="http://127.0.0.1:9")
    (tmp_path / "run.sh").write_text(rendered(launch))
    pid, start = alive(os.getpid())
    state = f'{{"runner_pid": {pid}, "runner_start": {start}, "server_pid": {pid}, "server_start": %s, "exit": null}}'
    (tmp_path / "running.json").write_text(state % start)
    done = run(tmp_path / "run.sh", "status")
    assert done.returncode == 0
    assert f"pid        {pid} (supervisor)" in done.stdout
    assert "health     no answer" in done.stdout
    (tmp_path / "running.json").write_text(state % (start + 1))
    done = run(tmp_path / "run.sh", "status")
    assert (done.returncode, done.stdout) == (0, "4403-glm-4.7-flash-q4: is starting\n")
    (tmp_path / "running.json").write_text((state % start).replace(f": {start}", f": {start + 1}"))
    assert run(tmp_path / "run.sh", "status").returncode == 3


def test_start_shows_why_the_manager_refuses(tmp_path: Path) -> None:
    launch = replace(a_launch(), state_file=str(tmp_path / "running.json"), url="http://127.0.0.1:9")
    refuses = {
        **COMMANDS,
        "start": ["sh", "-c", "echo no such unit >&2; exit 5"],
        "prepare": ["touch", str(tmp_path / "p")],
    }
    (tmp_path / "run.sh").write_text(rendered(launch, commands=refuses))
    done = run(tmp_path / "run.sh", "start")
    assert (done.returncode, done.stderr) == (1, "no such unit\n")
    assert (tmp_path / "p").exists()


def test_start_says_how_the_server_ended(tmp_path: Path) -> None:
    launch = replace(a_launch(), state_file=str(tmp_path / "running.json"), url="http://127.0.0.1:9")
    ended = '{"runner_pid": 1, "runner_start": 0, "exit": {"status": 134, "at": 1.5}}'
    starts = {**COMMANDS, "start": ["sh", "-c", f"echo '{ended}' > {tmp_path}/running.json"]}
    (tmp_path / "run.sh").write_text(rendered(launch, commands=starts))
    done = run(tmp_path / "run.sh", "start")
    assert done.returncode == 1
    assert "llama-server ended with exit status 134" in done.stderr


def test_stop_ends_a_runner_whose_manager_is_gone(tmp_path: Path) -> None:
    launch = replace(a_launch(), state_file=str(tmp_path / "running.json"))
    (tmp_path / "run.sh").write_text(rendered(launch, commands={**COMMANDS, "stop": ["false"]}))
    child = subprocess.Popen(["sleep", "100"])
    try:
        pid, start = alive(child.pid)
        (tmp_path / "running.json").write_text(f'{{"runner_pid": {pid}, "runner_start": {start}}}')
        done = run(tmp_path / "run.sh", "stop")
        assert done.returncode == 0
        assert child.wait(5) == -15
    finally:
        child.kill()
        child.wait()


def test_stop_where_nothing_runs_is_done(tmp_path: Path) -> None:
    launch = replace(a_launch(), state_file=str(tmp_path / "running.json"))
    (tmp_path / "run.sh").write_text(rendered(launch, commands={**COMMANDS, "stop": ["false"]}))
    done = run(tmp_path / "run.sh", "stop")
    assert (done.returncode, done.stdout) == (0, "4403-glm-4.7-flash-q4: is not running\n")
