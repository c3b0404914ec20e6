# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make the start fail: the port by real sockets, the arguments by what an image would say."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import preflight, record
from ansible_collections.gpufleet.llamacpp.tests.unit._instance.sample import IMAGE, SERVER, a_launch, a_record, a_spec

HELP = """-c,    --ctx-size N                     size of the prompt context
--temp, --temperature N                 temperature (default: 0.80)
--min-p N                               min-p sampling
"""


class Image:
    """The llama-server of an image: refuses with this, and remembers what it was asked."""

    def __init__(self, code: int = 0, said: str = "", help_code: int = 0) -> None:
        self.code, self.said, self.help_code = code, said, help_code
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(list(argv))
        return (self.help_code, HELP, "") if argv[-1] == "--help" else (self.code, "", self.said)


def problems(image: Image, *args: str) -> list[str]:
    return preflight.argument_problems(a_spec(), [*a_launch()["argv"], *args], image)


def test_a_sound_command_line_is_asked_for_once_and_does_nothing() -> None:
    image = Image()
    assert problems(image) == []
    assert image.asked == [[*a_launch()["argv"], "--completion-bash"]]


@pytest.mark.parametrize("option", ["--log-file", "--log_file", "--rpc"])
def test_what_acts_already_when_it_is_parsed_is_left_out(option: str) -> None:
    image = Image()
    problems(image, option, "value", "--verbose")
    assert image.asked[0][-3:] == ["1.0", "--verbose", "--completion-bash"]


def test_an_unknown_option_with_the_one_that_was_meant() -> None:
    image = Image(1, "error: invalid argument: --tempp\n")
    assert problems(image) == [f"args: the llama-server in {IMAGE} knows no '--tempp'. Did you mean --temp?"]
    assert image.asked[1][-3:] == [IMAGE, SERVER, "--help"]


def test_an_unknown_option_that_is_like_no_other() -> None:
    image = Image(1, "error: invalid argument: --zzzzzz\n")
    assert problems(image)[0].endswith("knows no '--zzzzzz'. Its --help lists what it knows.")
    assert problems(Image(1, "error: invalid argument: --tempp\n", help_code=1))[0].endswith("lists what it knows.")


def test_a_value_for_an_option_that_takes_none() -> None:
    (problem,) = problems(Image(1, "error: invalid argument: true\n"))
    assert problem.endswith("takes 'true' for an option, because the one before it has no value. Take 'true' out.")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            'warn: x\nerror while handling argument "--top-k": stoi\n\nusage:\n--top-k N\n',
            '"--top-k": a number is expected. Correct',
        ),
        ("FATAL:   could not open image\n", "FATAL:   could not open image. Correct"),
        ("one\ntwo\nthree\nfour\n", "line: two; three; four. Correct"),
        ("", "line: exit status 1. Correct"),
    ],
)
def test_a_refused_command_line(said: str, shown: str) -> None:
    (problem,) = problems(Image(1, said))
    assert problem.startswith(f"args: llama-server in {IMAGE} refuses its command line: ")
    assert shown in problem


def test_a_user_that_is_not_there() -> None:
    (problem,) = preflight.user_problems("systemd", "nobody-at-all")
    assert "no user nobody-at-all" in problem
    assert "llamacpp_host" in problem
    assert preflight.user_problems("systemd", "root") == []
    assert preflight.user_problems("supervisor", "nobody-at-all") == []


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_free_port(home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert preflight.port_problems(a_spec(port=port), home, None) == []


def test_a_port_of_a_stranger(home: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (problem,) = preflight.port_problems(a_spec(port=port), home, None)
    assert f"port: {port} is in use by pid {os.getpid()} of user {getpass.getuser()}: " in problem
    assert problem.endswith("with that script), or choose another port.")


def test_the_port_of_the_instance_itself(home: str) -> None:
    """Whose server is some process below its runner, which this test is now."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        spec = a_spec(port=int(child.stdout.readline()))
        assert preflight.port_problems(spec, home, os.getpid()) == []
        assert len(preflight.port_problems(spec, home, None)) == 1
        assert len(preflight.port_problems(spec, home, child.pid)) == 1
    finally:
        child.communicate(b"\n")


def test_the_port_of_another_instance_though_it_does_not_run(home: str, tmp_path: Path) -> None:
    for name, port in (("other", 4403), ("third", 4404), ("4403-glm-4.7-flash-q4", 4403)):
        (tmp_path / name).mkdir()
        record.write(str(tmp_path / name), a_record(name=name, port=port))
    assert preflight.port_problems(a_spec(), home, None) == [
        "port: 4403 belongs to the instance other of this host. Choose another."
    ]


def test_a_value_that_is_no_number_is_called_that() -> None:
    said = 'error while handling argument "--temp": stof\n\nusage:\n--temp N\n'
    (problem,) = preflight.argument_problems(
        a_spec(), ["apptainer", "exec", "/x.sif", "llama-server"], lambda argv: (1, "", said)
    )
    assert 'handling argument "--temp": a number is expected. Correct it.' in problem
