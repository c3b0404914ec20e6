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
BEGIN = a_launch(args=[]).argv[-12:]


def check(*words: str, **env: str) -> lint.Checked:
    return lint.check_arguments([*BEGIN, *words], env, OPTIONS, OWNED)


# The words, and the whole sentence.
WRONG = [
    ("--tempp 1", "unknown option --tempp. Did you mean --temp?"),
    ("--ctx-sise 1", "unknown option --ctx-sise. Did you mean --ctx-size? Set it with the option context_size."),
    ("--ctx_sise 1", "unknown option --ctx_sise. Did you mean --ctx-size?"),
    ("--ngl 1", "Did you mean -ngl? Set it with the option gpu_layers."),
    ("-temp 1", "unknown option -temp. Did you mean --temp?"),
    (
        "--zzzzzz 1",
        "unknown option --zzzzzz, and this image's llama-server has no similar one. Its --help lists all options.",
    ),
    ("--mlock", "--mlock was removed from this build of llama-server. Use '--load-mode mlock'."),
    ("--no_mmap", "--no_mmap was removed from this build of llama-server. Use '--load-mode none'."),
    (
        "--draft 3",
        "--draft was removed from this build of llama-server. --help says: the argument has been removed. use",
    ),
    ("--temp", "--temp needs a value, but nothing follows. Write '--temp N': temperature."),
    ("--temp --jinja", "--temp needs a value, but --jinja follows. Write '--temp N': temperature."),
    ("--flash-attn", "--flash-attn needs a value, but nothing follows. Write '--flash-attn [on|off|auto]': attention."),
    ("--control-vector-layer-range 1", "Write '--control-vector-layer-range START END': from"),
    ("--jinja true", "'true' is not an option, and --jinja takes no value. Remove it."),
    ("--temp 1 2", "and --temp takes one value. Remove it, or put its option in front of it."),
    ("--control-vector-layer-range 1 2 3", "'3' is not an option, and --control-vector-layer-range takes two values."),
    ("--temp warm", "--temp 'warm' is not valid, expected a number such as 1 or 0.5."),
    ("--temp 1.0x", "--temp '1.0x' is not valid"),
    ("--temp nan", "--temp 'nan' is not valid"),
    ("--temp 1e999", "--temp '1e999' is not valid"),
    ("--new-thing x", "--new-thing 'x' is not valid, expected a number"),
    ("--top-k 4x", "--top-k '4x' is not valid, expected a whole number."),
    ("\u2014temp 1", "'\u2014temp' begins with a long dash. Write '--temp'."),
    ("--top-k 4.5", "--top-k '4.5' is not valid"),
    ("--top-k 2147483648", "--top-k '2147483648' is not valid, expected a whole number up to 2147483647."),
    ("--seed 4294967296", "up to 4294967295."),
    ("--slot-prompt-similarity a", "'a' is not valid, expected a number such as 1 or 0.5."),
    ("--split-mode rows", "--split-mode 'rows' is not valid, expected one of none, layer, row."),
    ("-ctk q9", "-ctk 'q9' is not valid, expected one of f16, q8_0."),
    ("--fit maybe", "--fit 'maybe' is not valid, expected one of on, off."),
    ("--fit ON", "--fit 'ON' is not valid, expected one of on, off."),
    ("--poll 101", "--poll '101' is not valid, expected a whole number from 0 to 100."),
    ("--cpu-strict 2", "--cpu-strict '2' is not valid, expected one of 0, 1."),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_word(line: str, said: str) -> None:
    (problem,) = check(*line.split()).problems
    assert problem.option == "args"
    assert said in str(problem)
    assert problem.remedy.endswith((".", "?"))
    assert not problem.text.endswith(".")


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
    assert lint.check_arguments(["-ngl", layers], {}, OPTIONS, OWNED).problems == []
    (problem,) = lint.check_arguments(["-ngl", layers + "x"], {}, OPTIONS, OWNED).problems
    assert problem.text.endswith("expected a whole number, auto or all")


def test_all_at_once_and_what_is_left() -> None:
    checked = check("--tempp", "1", "--top-k", "4x", "--jinja", "--top-p", "--draft", "1", "--mlock")
    assert [" ".join(problem.text.split()[:3]) for problem in checked.problems] == [
        "unknown option --tempp",
        "--top-k '4x' is",
        "--top-p needs a",
        "--draft was removed",
        "--mlock was removed",
    ]
    assert [use.word for use in checked.sound][-1] == "--jinja"


def test_an_option_of_a_build_without_the_replacement_is_only_unknown() -> None:
    (problem,) = lint.check_arguments(["--mlock"], {}, help_text.parse("-m,    --model FNAME\n"), OWNED).problems
    assert "removed" not in problem.text


def test_one_option_twice() -> None:
    checked = check("--temp", "1", "--jinja", "--temperature", "2", "--no_jinja", "--lora", "a", "--lora", "b")
    assert checked.problems == []
    assert checked.warnings == [
        "args: '--temp 1' and '--temperature 2' set the same option. The last one counts. Remove the others.",
        "args: '--jinja' and '--no_jinja' set the same option. The last one counts. Remove the others.",
    ]


def test_an_option_that_does_nothing() -> None:
    assert check("-dt", "1").warnings == ["args: -dt is deprecated and has no effect. Remove it."]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "LLAMA_ARG_TOP_KK",
            "1",
            "TOP_KK, which llama-server ignores. Did you mean LLAMA_ARG_TOP_K?",
        ),
        ("LLAMA_ARG_CTX_SISE", "1", "Did you mean LLAMA_ARG_CTX_SIZE? Set it with the option context_size."),
        ("LLAMA_ARG_X", "1", "unknown variable LLAMA_ARG_X, which llama-server ignores. Put the option into args"),
        ("LLAMA_ARG_XYZZY_PLUGH", "1", "which llama-server ignores. Put the option into args, under its own name."),
        ("LLAMA_ARG_MLOCK", "1", "was removed from this build of llama-server. Add '--load-mode mlock' to args."),
        ("LLAMA_ARG_TOP_K", "4x", "LLAMA_ARG_TOP_K=4x is not valid, expected a whole number"),
        ("LLAMA_ARG_ENDPOINT_METRICS", "TRUE", "=TRUE is not valid, expected on or off, in lower case."),
        (
            "LLAMA_ARG_NO_JINJA",
            "0",
            "LLAMA_ARG_NO_JINJA=0 has the effect of LLAMA_ARG_NO_JINJA=1: llama-server only checks",
        ),
        ("LLAMA_ARG_NO_TOP_P", "1", "unknown variable LLAMA_ARG_NO_TOP_P"),
    ],
)
def test_a_wrong_variable(name: str, value: str, said: str) -> None:
    checked = check(**{name: value})
    (problem,) = checked.problems
    assert checked.wrong_env == [name]
    assert problem.option == "env"
    assert said in str(problem)


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
        f"env: {name}={value} has no effect, because {words} is on the command line. Remove one of them."
    ]


def test_a_line_without_a_help() -> None:
    uses = lint.split_options(["-m", "x", "--log_file", "y", "--seed", "-1", "--a", "b", "c"])
    assert [use.words for use in uses] == [("-m", "x"), ("--log_file", "y"), ("--seed", "-1"), ("--a", "b", "c")]
    assert uses[1].option.names == ("--log-file",)
