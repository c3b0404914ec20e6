# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line and the variables against what an image lists: every mistake at once, and what to do about each."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import help as help_text
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import lint
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.options import OWNED
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import HELP
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_spec

OPTIONS = help_text.parse(HELP)
BEGIN = a_launch(args=[])["argv"][-12:]


def check(*words: str, **env: str) -> lint.Checked:
    return lint.check([*BEGIN, *words], env, OPTIONS, OWNED)


# The words, and the whole sentence.
WRONG = [
    ("--tempp 1", "unknown option --tempp, did you mean --temp?"),
    ("--ctx-sise 1", "did you mean --ctx-size? That is the option context_size of this module. Set it there."),
    ("--ctx_sise 1", "unknown option --ctx_sise, did you mean --ctx-size?"),
    ("--ngl 1", "did you mean -ngl? That is the option gpu_layers of this module. Set it there."),
    ("-temp 1", "unknown option -temp, did you mean --temp?"),
    ("--zzzzzz 1", "unknown option --zzzzzz. The llama-server of this image has none that is like it"),
    ("--mlock", "--mlock is gone from this build of llama-server. Write '--load-mode mlock' instead."),
    ("--no_mmap", "--no_mmap is gone from this build of llama-server. Write '--load-mode none' instead."),
    ("--draft 3", "--draft is gone from this build of llama-server: use --spec-draft-n-max instead."),
    ("--temp", "--temp needs a value, N (temperature), and nothing follows. Write '--temp VALUE'."),
    ("--temp --jinja", "--temp needs a value, N (temperature), and --jinja follows. Write '--temp VALUE'."),
    ("--flash-attn", "--flash-attn needs a value, [on|off|auto] (attention), and nothing follows."),
    ("--control-vector-layer-range 1", "--control-vector-layer-range needs a value, START END"),
    ("--jinja true", "'true' is no option, and --jinja before it takes no value. Take it out."),
    ("--temp 1 2", "and --temp before it takes one value. Take it out, or write its option before it."),
    ("--control-vector-layer-range 1 2 3", "'3' is no option, and --control-vector-layer-range before it takes two"),
    ("--temp warm", "--temp 'warm' is not possible: it takes a number, such as 1 or 0.5."),
    ("--temp 1.0x", "--temp '1.0x' is not possible"),
    ("--temp nan", "--temp 'nan' is not possible"),
    ("--temp 1e999", "--temp '1e999' is not possible"),
    ("--new-thing x", "--new-thing 'x' is not possible: it takes a number"),
    ("--top-k 4x", "--top-k '4x' is not possible: it takes a whole number."),
    ("\u2014temp 1", "'\u2014temp' begins with a long dash. Write '--temp'."),
    ("--top-k 4.5", "--top-k '4.5' is not possible"),
    ("--top-k 2147483648", "--top-k '2147483648' is not possible: it takes a whole number up to 2147483647."),
    ("--seed 4294967296", "up to 4294967295."),
    ("--slot-prompt-similarity a", "'a' is not possible: it takes a number, such as 1 or 0.5."),
    ("--split-mode rows", "--split-mode 'rows' is not possible: it takes one of none, layer, row."),
    ("-ctk q9", "-ctk 'q9' is not possible: it takes one of f16, q8_0."),
    ("--fit maybe", "--fit 'maybe' is not possible: it takes one of on, off."),
    ("--fit ON", "--fit 'ON' is not possible: it takes one of on, off."),
    ("--poll 101", "--poll '101' is not possible: it takes a whole number from 0 to 100."),
    ("--cpu-strict 2", "--cpu-strict '2' is not possible: it takes one of 0, 1."),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_word(line: str, said: str) -> None:
    (problem,) = check(*line.split()).problems
    assert problem.startswith("args: ")
    assert said in problem
    assert problem.endswith((".", "?"))


@pytest.mark.parametrize(
    "line",
    [
        "--temp 1.0 --top-k -1 --seed -1 --poll 100",
        "--seed 4294967295",
        "--temp .5 --top-p 1. --min-p 1e-3 --new-thing -2.5",
        "--fit enabled --flash_attn 1 --cpu-strict 0",
        "--control-vector-layer-range 1 2 --jinja",
        "--lora --this-is-a-file",
        "--load-mode whatever",
        "-fitt 1024,2048",
        "--slot-prompt-similarity 0.5",
    ],
)
def test_a_right_line(line: str) -> None:
    checked = check(*line.split())
    assert (checked.problems, checked.warnings) == ([], [])
    assert [word for use in checked.sound for word in use.words] == [*BEGIN, *line.split()]


def test_the_seed_is_right() -> None:
    checked = check(*a_spec().args)
    assert (checked.problems, checked.warnings) == ([], [])


@pytest.mark.parametrize("layers", ["99", "auto", "all"])
def test_layers(layers: str) -> None:
    assert lint.check(["-ngl", layers], {}, OPTIONS, OWNED).problems == []
    (problem,) = lint.check(["-ngl", layers + "x"], {}, OPTIONS, OWNED).problems
    assert problem.endswith("it takes a whole number, auto or all.")


def test_all_at_once_and_what_is_left() -> None:
    checked = check("--tempp", "1", "--top-k", "4x", "--jinja", "--top-p", "--draft", "1", "--mlock")
    assert [" ".join(problem.split()[1:4]) for problem in checked.problems] == [
        "unknown option --tempp,",
        "--top-k '4x' is",
        "--top-p needs a",
        "--draft is gone",
        "--mlock is gone",
    ]
    assert [use.word for use in checked.sound][-1] == "--jinja"


def test_an_option_of_a_build_without_the_replacement_is_only_unknown() -> None:
    (problem,) = lint.check(["--mlock"], {}, help_text.parse("-m,    --model FNAME\n"), OWNED).problems
    assert "gone" not in problem


def test_one_option_twice() -> None:
    checked = check("--temp", "1", "--jinja", "--temperature", "2", "--no_jinja", "--lora", "a", "--lora", "b")
    assert checked.problems == []
    assert checked.warnings == [
        "args: '--temp 1' and '--temperature 2' are one option. The last one counts; take the others out.",
        "args: '--jinja' and '--no_jinja' are one option. The last one counts; take the others out.",
    ]


def test_an_option_that_does_nothing() -> None:
    assert check("-dt", "1").warnings == ["args: -dt is deprecated and does nothing any more. Take it out."]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LLAMA_ARG_TOP_KK", "1", "unknown variable LLAMA_ARG_TOP_KK, did you mean LLAMA_ARG_TOP_K?"),
        ("LLAMA_ARG_CTX_SISE", "1", "That is the option context_size of this module. Set it there."),
        ("LLAMA_ARG_XYZZY_PLUGH", "1", "which llama-server would ignore. Say it in args, by the option's name."),
        ("LLAMA_ARG_MLOCK", "1", "Write '--load-mode mlock' into args instead."),
        ("LLAMA_ARG_TOP_K", "4x", "LLAMA_ARG_TOP_K=4x is not possible: it takes a whole number"),
        ("LLAMA_ARG_ENDPOINT_METRICS", "TRUE", "=TRUE is not possible: it takes on or off, in lower case."),
        ("LLAMA_ARG_NO_JINJA", "0", "LLAMA_ARG_NO_JINJA=0 means the same as LLAMA_ARG_NO_JINJA=1"),
        ("LLAMA_ARG_NO_TOP_P", "1", "unknown variable LLAMA_ARG_NO_TOP_P"),
    ],
)
def test_a_wrong_variable(name: str, value: str, said: str) -> None:
    checked = check(**{name: value})
    (problem,) = checked.problems
    assert checked.wrong_env == [name]
    assert problem.startswith("env: ")
    assert said in problem


def test_variables_that_are_none_of_ours_or_right() -> None:
    env = {"GGML_X": "y", "LLAMA_ARG_TOP_K": "4", "LLAMA_ARG_ENDPOINT_METRICS": "1", "LLAMA_ARG_NO_JINJA": "1"}
    checked = check(**env)
    assert (checked.problems, checked.warnings) == ([], [])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("LLAMA_ARG_TOP_K", "4", "--top-k 5"), ("LLAMA_ARG_NO_JINJA", "1", "--jinja"), ("LLAMA_ARG_FIT", "on", "-fit on")],
)
def test_a_variable_that_the_command_line_overrides(name: str, value: str, words: str) -> None:
    checked = check(*words.split(), **{name: value})
    assert checked.problems == []
    assert checked.warnings == [
        f"env: {name}={value} has no effect, because {words} is on the command line. Take one of them out."
    ]


def test_a_line_without_a_help() -> None:
    uses = lint.as_they_stand(["-m", "x", "--log_file", "y", "--seed", "-1", "--a", "b", "c"])
    assert [use.words for use in uses] == [("-m", "x"), ("--log_file", "y"), ("--seed", "-1"), ("--a", "b", "c")]
    assert uses[1].option.names == ("--log-file",)
