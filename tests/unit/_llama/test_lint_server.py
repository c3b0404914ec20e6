# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image's own parser says, asked by a fake of it, with the messages of the real one."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import help as help_text
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import lint, lint_server
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import HELP, Image
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import IMAGE, SERVER

BEGIN = ["apptainer", "exec", IMAGE, SERVER]
OPTIONS = help_text.parse(HELP)


def refused(option: str, message: str, what: str = "argument") -> tuple[int, str]:
    return 1, f'warn: x\nerror while handling {what} "{option}": {message}\n\nusage:\n{option} N\n'


def problems(image: Image, *words: str) -> list[Problem]:
    return lint_server.check_parser(BEGIN, lint.check_arguments(words, {}, OPTIONS, {}).sound, IMAGE, image)


def test_a_sound_line_is_asked_for_once_and_within_bounds() -> None:
    image = Image()
    assert problems(image, "--jinja", "--temp", "1") == []
    assert image.asked == [["timeout", "-k", "5", "60", *BEGIN, "--jinja", "--temp", "1", "--completion-bash"]]


@pytest.mark.parametrize("option", ["--log-file", "--log_file", "--rpc"])
def test_what_acts_already_when_it_is_parsed_is_left_out(option: str) -> None:
    image = Image()
    problems(image, option, "value", "--metrics")
    assert image.asked[0][-2:] == ["--metrics", "--completion-bash"]
    assert image.asked[0][-3] == SERVER


def test_every_refusal_is_found_by_asking_again_without_it() -> None:
    image = Image(refused("-lm", "invalid value"), refused("--slot_save_path", "error: not a directory: /x"), (0, ""))
    first, second = problems(image, "-lm", "foo", "--jinja", "--slot_save_path", "/x")
    assert str(first) == "args: llama-server refuses '-lm foo': invalid value. Its help lists auto, mlock."
    assert str(second) == (
        "args: llama-server refuses '--slot_save_path /x': not a directory: /x. The path is inside the container; "
        "binds mounts folders of the host there."
    )
    assert [line[8:-1] for line in image.asked] == [
        ["-lm", "foo", "--jinja", "--slot_save_path", "/x"],
        ["--jinja", "--slot_save_path", "/x"],
        ["--jinja"],
    ]


def test_words_of_c_plus_plus_are_translated() -> None:
    (problem,) = problems(Image(refused("-fitt", "stoi"), (0, "")), "-fitt", "x")
    assert problem.text == "llama-server refuses '-fitt x': expected a number"
    assert problem.remedy == "It takes MiB0,MiB1,MiB2,...: target margin, default: 1024."


def test_a_variable_is_taken_out_too() -> None:
    begin = ["apptainer", "exec", "--env", "LLAMA_ARG_X=y", "--env", "A=b", IMAGE, SERVER]
    image = Image(refused("LLAMA_ARG_X", "stoi", "environment variable"), (0, ""))
    found = lint_server.check_parser(begin, [], IMAGE, image)
    assert found == [Problem("env", "llama-server refuses LLAMA_ARG_X: expected a number", "Correct it.")]
    assert image.asked[1][4:] == ["apptainer", "exec", "--env", "A=b", IMAGE, SERVER, "--completion-bash"]


def test_a_variable_that_is_not_ours_ends_it() -> None:
    image = Image(refused("LLAMA_ARG_X", "stoi", "environment variable"))
    assert len(problems(image, "--jinja")) == 1


def test_variables_that_are_known_to_be_wrong_are_left_out() -> None:
    begin = ["apptainer", "exec", "--env", '"LLAMA_ARG_X=y=z"', "--env", "A=b", IMAGE, SERVER]
    image = Image()
    assert lint_server.check_parser(begin, [], IMAGE, image, without=["LLAMA_ARG_X"]) == []
    assert '"LLAMA_ARG_X=y=z"' not in image.asked[0]
    assert "A=b" in image.asked[0]


def test_a_build_that_does_not_know_the_question() -> None:
    assert problems(Image((1, "error: invalid argument: --completion-bash\n")), "--jinja") == []


@pytest.mark.parametrize(
    ("code", "said", "shown"),
    [
        (
            255,
            "INFO: x\nFATAL:   no /dev/fuse\n",
            f"image: {IMAGE} cannot be run on this host: FATAL:   no /dev/fuse. Try `apptainer",
        ),
        (255, f"FATAL:   stat {SERVER}: no such file or directory\n", f"server_path: {IMAGE} has no {SERVER}."),
        (124, "", "did not answer within 60 s"),
        (1, "one\ntwo\nthree\nfour\n", "refuses its command line: two; three; four. Correct"),
        (1, "", "refuses its command line: exit status 1. Correct"),
        refused("--unheard-of", "what") + ("refuses its command line: error while handling",),
    ],
)
def test_other_failures_end_it(code: int, said: str, shown: str) -> None:
    image = Image((code, said))
    (problem,) = problems(image, "--jinja")
    assert shown in str(problem)
    assert len(image.asked) == 1
