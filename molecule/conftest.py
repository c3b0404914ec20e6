# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios share: the host as root sees it, the instance on it, and functions that deploy and ask.

The lab fakes NVIDIA's management library. A test that needs GPUs tests the management of GPUs and not CUDA.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from ansible_collections.gpufleet.llamacpp.molecule.direct import Direct
from ansible_collections.gpufleet.llamacpp.molecule.play import Deployed, Play
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
INVENTORY = ROOT / "inventory/lab"
HOST = "gpu1"
NAME = "4403-glm-4.7-flash-q4"
REAL_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAB = os.environ.get("LAB") or "molecule"
ENVIRONMENT = {
    **os.environ,
    "LAB": LAB,
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
    "ANSIBLE_FORCE_COLOR": "0",  # molecule asks for colours, and the tests read the text
}


@dataclass(frozen=True)
class Site:
    """The user that a scenario deploys as, and what it expects: home, manager, the server's user, and the model.

    ``fresh``: the host has no Python environment yet.
    """

    login: str = "operator"
    home: str = "/home/operator/llamacpp"
    manager: str = "supervisor"
    user: str = "operator"
    model: str = "SmolLM2-tiny.gguf"
    fresh: bool = False

    @property
    def folder(self) -> str:
        return f"{self.home}/{NAME}"


SITES = {
    "default": Site(model=REAL_MODEL, fresh=True),
    "systemd": Site("root", "/opt/llamacpp", "systemd", "llamacpp", fresh=True),
    "systemd_user": Site(manager="systemd_user"),
    "faults": Site(),
    "services": Site(),
    "fleet": Site(),
    "artifacts": Site(),
    "upgrade": Site(model=REAL_MODEL),
}


def overrides(name: str = NAME, **settings: Any) -> dict[str, Any]:
    """The lab's settings of all instances, with some of one instance changed."""
    variables = yaml.safe_load((INVENTORY / "group_vars/lab.yml").read_text())
    found: dict[str, Any] = variables["llamacpp_instance_overrides"]
    found[name] = {**found[name], **settings}
    return found


def play(playbook: str, *words: str, **variables: Any) -> Play:
    """Begin to run a playbook of the collection on the lab's hosts; do not wait for it."""
    path = str(ROOT / "playbooks" / f"{playbook}.yml")
    return Play(ENVIRONMENT, "-i", str(INVENTORY), "-e", json.dumps(variables), *words, path)


class Instance:
    """The instance on the host, seen from outside: processes, files, answers; nothing that the collection reports."""

    def __init__(self, site: Site, host: Host, login: Host) -> None:
        self.site = site
        self.host = host
        self.login = login

    def account(self) -> dict[str, Any]:
        """The runner's record of the processes that it started."""
        folder = f"/run/llamacpp-{NAME}" if self.site.manager == "systemd" else self.site.folder
        return json.loads(self.host.check_output("cat %s", f"{folder}/running.json"))

    def record(self) -> dict[str, Any]:
        return json.loads(self.host.check_output("cat %s", f"{self.site.folder}/instance.json"))

    def pids(self) -> list[int]:
        """Every llama-server of the host, whoever started it."""
        return [int(pid) for pid in self.host.run("pgrep -x llama-server").stdout.split()]

    def pid(self) -> int:
        pids = self.pids()
        assert len(pids) == 1, f"expected one llama-server, there are {pids}"
        return pids[0]

    def command(self, pid: int) -> list[str]:
        return self.host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/cmdline").split("\n")

    def parents(self) -> list[str]:
        """The commands above the server, the next one first."""
        found = []
        pid = self.pid()
        while pid:
            parent, args = self.host.check_output(f"ps -o ppid=,args= -p {pid}").split(None, 1)
            pid = int(parent)
            found.append(args)
        return found[1:]

    def leftovers(self) -> str:
        """Processes that have to do with the instance; '' where there are none."""
        pattern = "llama-server|runner.py|Apptainer|apptainer|squashfuse|supervisord"
        return self.host.run("pgrep -af %s", pattern).stdout.strip()

    def health(self) -> int:
        curl = self.host.run("curl -s -o /dev/null -m 5 -w '%{http_code}' http://127.0.0.1:4403/health")
        return int(curl.stdout or 0)

    def script(self, word: str) -> Any:
        """Call run.sh as the user that deployed it."""
        return self.login.run("%s %s", f"{self.site.folder}/run.sh", word)

    def log(self) -> str:
        if self.site.manager == "systemd":
            return self.host.check_output("journalctl --no-pager -o cat -u %s", f"llamacpp-{NAME}")
        return self.host.check_output("cat %s", f"{self.site.folder}/llama-server.log")

    def starts(self) -> int:
        """How often the server was started, by the log, which is never truncated."""
        return self.log().count("llamacpp runner: starting ")

    def wait(self, met: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                pytest.fail(
                    f"no {what} after {seconds:.0f} s; processes:\n{self.leftovers()}\nlog:\n{self.log()[-3000:]}"
                )
            time.sleep(0.3)

    def back(self, before: int) -> int:
        """Wait until one server is ready, and another one than before; returns its pid."""
        self.wait(lambda: len(self.pids()) == 1 and self.pids() != [before] and self.health() == 200, "new server")
        return self.pid()

    def snapshot(self) -> str:
        """Every file that a deploy could touch, with owner, mode, size and times; without logs and Ansible's own."""
        return snapshot(self.host, self.site.home, "/data/models", "/etc", "/var/spool/cron", "/home/operator/.config")


def snapshot(host: Host, *folders: str) -> str:
    """The state of all files below the folders. Folders are without times, which temporary files change."""
    found = host.run(
        f"find {' '.join(folders)} -xdev ! -path '*/.ansible*' ! -path '*/.cache*' ! -name '*.log' ! -name '*.pyc'"
        " ! -name __pycache__ \\( -type d -printf '%p %m %u:%g\\n' -o -printf '%p %y %m %u:%g %s %T@ %i\\n' \\) | sort"
    )
    return found.stdout


@pytest.fixture(scope="session")
def site() -> Site:
    return SITES[os.environ["MOLECULE_SCENARIO_NAME"]]


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether `make test-all` runs the tests, with more repetitions."""
    return bool(os.environ.get("TEST_ALL"))


@pytest.fixture(scope="session")
def connect() -> Iterator[Callable[..., Host]]:
    """Connect to a host of the lab as a user, over one ssh connection for all commands of a test run."""
    with tempfile.TemporaryDirectory() as folder:

        def as_user(user: str, name: str = HOST) -> Host:
            config = ROOT / ".lab/run" / LAB / "ssh_config"
            control = f"{folder}/{user}-{name}"
            return testinfra.get_host(f"ssh://{user}@{name}", ssh_config=str(config), controlpath=control)

        yield as_user


@pytest.fixture(scope="session")
def host_name() -> str:
    """The host that the tests look at; a scenario with several overrides it."""
    return HOST


@pytest.fixture(scope="session")
def host(host_name: str, connect: Callable[..., Host]) -> Host:
    """The host as root sees it: all processes, all files."""
    return connect("root", host_name)


@pytest.fixture(scope="session")
def instance(host_name: str, site: Site, host: Host, connect: Callable[..., Host]) -> Instance:
    return Instance(site, host, connect(site.login, host_name))


@pytest.fixture(scope="session")
def begin(host_name: str, site: Site) -> Callable[..., Play]:
    """Begin to run deploy-4403.yml with the lab's settings and those of a test; do not wait for it."""

    def run(*words: str, **settings: Any) -> Play:
        extra = {"ansible_user": site.login, "llamacpp_instance_overrides": overrides(**settings)}
        return play("deploy-4403", "-l", host_name, *words, **extra)

    return run


@pytest.fixture(scope="session")
def run_playbook() -> Callable[..., Deployed]:
    """Run a playbook of the collection by its name, on the lab's hosts, with these variables."""
    return lambda *words, **variables: play(*words, **variables).wait()


@pytest.fixture(scope="session")
def begin_playbook() -> Callable[..., Play]:
    """Begin to run a playbook of the collection; do not wait for it."""
    return play


@pytest.fixture(scope="session")
def changed_overrides() -> Callable[..., dict[str, Any]]:
    """llamacpp_instance_overrides with some settings of one instance changed."""
    return overrides


@pytest.fixture(scope="session")
def deploy(begin: Callable[..., Play]) -> Callable[..., Deployed]:
    """Run deploy-4403.yml as begin() does, and wait for it."""
    return lambda *words, **settings: begin(*words, **settings).wait()


@pytest.fixture(scope="session")
def tasks(host_name: str, site: Site) -> Callable[..., list[dict[str, Any]]]:
    """Call modules of the collection one after the other, given as (module, options, check mode). Returns their
    results; a failure does not end the calls.
    """

    def call(calls: Iterable[tuple[str, dict[str, Any], bool]]) -> list[dict[str, Any]]:
        todo: list[dict[str, Any]] = [
            {
                f"gpufleet.llamacpp.{name}": options,
                "check_mode": check,
                "register": f"answer_{number}",
                "ignore_errors": True,
            }
            for number, (name, options, check) in enumerate(calls)
        ]
        names = ", ".join(task["register"] for task in todo)
        with tempfile.TemporaryDirectory() as folder:
            answers, playbook = Path(folder, "answers.json"), Path(folder, "playbook.json")
            content = f"{{{{ [{names}] | to_json }}}}"
            todo.append(
                {"ansible.builtin.copy": {"content": content, "dest": str(answers)}, "delegate_to": "localhost"}
            )
            play = {"hosts": host_name, "gather_facts": False, "tasks": todo}
            playbook.write_text(json.dumps([play]))
            done = Play(ENVIRONMENT, "-i", str(INVENTORY), "-e", f"ansible_user={site.login}", str(playbook)).wait()
            assert done.code == 0, done.output
            return json.loads(answers.read_text())

    return call


@pytest.fixture(scope="session")
def module(tasks: Callable[..., list[dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """Call one module of the collection; returns its result."""
    return lambda name, /, **options: tasks([(name, options, False)])[0]


@pytest.fixture(scope="session")
def direct(host_name: str, site: Site, connect: Callable[..., Host]) -> Direct:
    """Modules without Ansible, as processes of the host."""

    def run(words: Iterable[str], environment: dict[str, str]) -> None:
        argv = [BIN / "ansible-playbook", "-i", INVENTORY, "-e", f"ansible_user={site.login}", *words]
        subprocess.run(argv, env={**ENVIRONMENT, **environment}, cwd=ROOT, check=True, capture_output=True)

    return Direct(connect(site.login, host_name), host_name, run)


@pytest.fixture(scope="session")
def late_start(connect: Callable[..., Host]) -> Callable[..., dict[str, Any]]:
    """Settings with which the server starts late: ``late_start(gpu1=0, gpu2=20)``, in seconds by host."""

    def settings(**seconds: int) -> dict[str, Any]:
        for name, pause in seconds.items():
            # The collection's question for the options (--completion-bash) is no start.
            case = f'case "$*" in *--completion-bash*) ;; "-m "*) sleep {pause} ;; esac'
            script = f'#!/bin/sh\n{case}\nexec llama-server "$@"\n'
            host = connect("root", name)
            host.check_output("mkdir -p /srv/late && printf %s > /srv/late/llama-server", script)
            host.check_output("chmod -R a+rx /srv/late")
        return {"server_path": "/late/llama-server", "binds": ["/data/models:/models", "/srv/late:/late:ro"]}

    return settings


@pytest.fixture(scope="session")
def lab() -> Callable[..., None]:
    """The lab's own commands, such as a reboot of the host."""

    def call(*words: str, **options: Any) -> None:
        subprocess.run([ROOT / "tests/lab/lab", *words], env=ENVIRONMENT, check=True, **options)

    return call
