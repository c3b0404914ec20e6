# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make the start fail: the port by real sockets, the rest by what an image would say."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import ports
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.probe import FactsCache
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import check as preflight
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import Image
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_record, a_spec


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_free_port(home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert preflight.check_port(a_spec(port=port), home, None) == []


def test_a_port_of_a_stranger(home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (problem,) = preflight.check_port(a_spec(port=port), home, None)
    assert f"port: {port} is in use by pid {os.getpid()} of user {getpass.getuser()}: " in str(problem)
    assert str(problem).endswith("another server), or choose another port.")
    assert not problem.may_pass


def test_the_port_of_the_instance_itself(home: str) -> None:
    """Whose server is some process below its runner, which this test is now."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        spec = a_spec(port=int(child.stdout.readline()))
        assert preflight.check_port(spec, home, os.getpid()) == []
        assert len(preflight.check_port(spec, home, None)) == 1
        assert len(preflight.check_port(spec, home, child.pid)) == 1
    finally:
        child.communicate(b"\n")


def test_the_port_of_another_instance_though_it_does_not_run(home: str, tmp_path: Path) -> None:
    for name, port in (("other", 4403), ("third", 4404), ("4403-glm-4.7-flash-q4", 4403)):
        (tmp_path / name).mkdir()
        store.write(str(tmp_path / name), a_record(name=name, port=port))
    assert preflight.check_port(a_spec(), home, None) == [
        Problem("port", "4403 belongs to the instance other of this host", "Choose another port.", may_pass=True)
    ]


def test_a_port_that_a_process_of_another_instance_still_has(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has another port already: its next restart gives this one up."""
    os.mkdir(f"{home}/other")
    store.write(f"{home}/other", a_record(name="other", port=4404))
    monkeypatch.setattr(preflight, "pids_of", lambda value: frozenset({os.getpid()}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        (problem,) = preflight.check_port(a_spec(port=server.getsockname()[1]), home, None)
    assert problem.may_pass


def test_a_port_that_needs_root_and_an_address_of_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "lowest", lambda: 1024)
    port, host = preflight.check_address(a_spec(port=443, host="192.0.2.1"))
    assert str(port) == "port: 443 needs root, and this user may use 1024 and above. Choose such a port."
    assert "host: no server can listen on 192.0.2.1 here (Cannot assign requested address). Use an" in str(host)
    assert not port.may_pass and not host.may_pass
    assert preflight.check_address(a_spec(port=1024)) == []


def check(home: str, image: Image, **changes: Any) -> preflight.Findings:
    options: dict[str, Any] = {"kinds": {"start"}, "asks_image": True, "min_build": None}
    options.update({key: changes.pop(key) for key in list(changes) if key in options})
    about = {key: changes.pop(key) for key in list(changes) if key in ("driver", "image_sha256")}
    cache = FactsCache(home, changes.pop("writes", False))
    spec = a_spec(**{"host": "127.0.0.1", "args": [], **changes})
    launch = a_launch(**{"host": "127.0.0.1", "args": [], **changes})
    return preflight.check_instance(spec, launch, preflight.HostAccess(home, image, cache, **about), **options)


def test_without_steps_nothing_is_asked(home: str) -> None:
    image = Image()
    found = check(home, image, kinds=set(), args=["--tempp 1"], host="0.0.0.0")
    assert (found.problems, found.warnings, image.asked) == ([], [], [])


def test_everything_at_once(home: str) -> None:
    image = Image(inside="version=13.0\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = check(
            home,
            image,
            port=server.getsockname()[1],
            host="0.0.0.0",
            args=["--tempp 1", "--top-k 4x", "--fit on", "--fit on"],
            env={"LLAMA_ARG_TOP_KK": "1"},
            min_build=12000,
            driver=12080,
        )
    assert [str(problem).split()[0] for problem in found.problems] == [
        "port:",
        "min_build:",
        "image:",
        "args:",
        "args:",
        "env:",
    ]
    assert [warning.split()[0] for warning in found.warnings] == ["host:", "args:", "args:"]


def test_an_image_that_is_not_there_is_not_asked(home: str) -> None:
    image = Image()
    found = check(home, image, asks_image=False, host="0.0.0.0")
    assert (found.problems, len(found.warnings), image.asked) == ([], 1, [])


def test_where_nothing_starts_the_port_does_not_matter(home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert check(home, Image(), port=server.getsockname()[1], kinds={"write"}).problems == []


def test_the_driver_does_not_matter_without_gpus(home: str) -> None:
    assert check(home, Image(inside="version=13.0\n"), driver=12080, gpus=[]).problems == []


def test_what_an_image_says_is_remembered_but_not_in_check_mode(home: str, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    for writes, asked in ((False, 2), (True, 2), (True, 1)):
        image = Image()
        check(home, image, writes=writes, image_sha256="ab" * 32)
        assert len(image.asked) == asked


def test_the_model_is_read_where_it_is_there(home: str, tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(gguf_builder.model())
    assert "more than the 4096 tokens" in check(home, Image(), model=str(model)).warnings[0]
    model.write_bytes(b"no model")
    assert check(home, Image(), model=str(model)).warnings == []


def test_a_server_that_does_not_even_print_its_help(home: str) -> None:
    (problem,) = check(home, Image(help_code=127)).problems
    assert str(problem).endswith("refuses its command line: it does not start. Correct it.")


def test_a_help_that_cannot_be_read_leaves_it_to_the_parser(home: str) -> None:
    image = Image((1, 'error while handling argument "--temp": stof\n'), (0, ""), text="nothing")
    (problem,) = check(home, image, args=["--temp 1.0"]).problems
    assert str(problem).startswith("args: llama-server refuses '--temp 1.0': expected a number.")
    assert len(image.lines) == 2


def test_what_is_known_to_be_wrong_is_not_asked_about(home: str) -> None:
    image = Image()
    check(home, image, args=["--tempp 1", "--top-k 4"], env={"LLAMA_ARG_TOP_KK": "1"})
    (line,) = image.lines
    assert line[-3:] == ["--top-k", "4", "--completion-bash"]
    assert "LLAMA_ARG_TOP_KK=1" not in line


def test_a_lowest_build_counts_for_what_runs_already(home: str, tmp_path: Path) -> None:
    """By what is remembered: no container is started for it."""
    (tmp_path / "shared").mkdir()
    check(home, Image(), writes=True, image_sha256="ab" * 32)
    image = Image()
    assert check(home, image, kinds=set(), image_sha256="ab" * 32).problems == []
    assert check(home, image, kinds=set(), image_sha256="cd" * 32, min_build=10**9).problems == []
    (problem,) = check(home, image, kinds=set(), image_sha256="ab" * 32, min_build=10**9).problems
    assert "and 1000000000 or later is required" in str(problem)
    assert image.asked == []
