# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options in a help text: names, what follows them, and what they may be."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import help as help_text
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.help import ServerOption as Option
from ansible_collections.gpufleet.llamacpp.tests.unit._llama.help_sample import HELP

KNOWN = help_text.by_name(help_text.parse(HELP))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "-ngl",
            Option(("-ngl", "--gpu-layers", "--n-gpu-layers"), "N", "layers on the GPUs", "LLAMA_ARG_N_GPU_LAYERS"),
        ),
        ("--metrics", Option(("--metrics",), "", "numbers to watch", "LLAMA_ARG_ENDPOINT_METRICS")),
        ("--no-jinja", Option(("--jinja", "--no-jinja"), "", "templates", "LLAMA_ARG_JINJA")),
        ("--fim-qwen-1.5b-default", Option(("--fim-qwen-1.5b-default",), "", "a model of its own")),
        (
            "--control-vector-layer-range",
            Option(("--control-vector-layer-range",), "START END", "from layer to layer"),
        ),
        (
            "-sm",
            Option(("-sm", "--split-mode"), "{none,layer,row}", "how to split", "", ("none", "layer", "row")),
        ),
        ("--cpu-strict", Option(("--cpu-strict",), "<0|1>", "whether to stay", "", ("0", "1"))),
        ("-fa", Option(("-fa", "--flash-attn"), "[on|off|auto]", "attention", "", ("on", "off", "auto"))),
    ],
)
def test_an_option(name: str, expected: Option) -> None:
    assert KNOWN[name] == expected


def test_values_that_the_description_lists() -> None:
    assert KNOWN["-ctk"].choices == ("f16", "q8_0")
    assert (KNOWN["-lm"].choices, KNOWN["-lm"].terms) == ((), ("auto", "mlock"))
    assert KNOWN["--poll"].choices == ()


@pytest.mark.parametrize(("name", "values"), [("--metrics", 0), ("--temp", 1), ("--control-vector-layer-range", 2)])
def test_how_many_words_follow(name: str, values: int) -> None:
    assert KNOWN[name].values == values


def test_a_hint_with_blanks_is_one_value() -> None:
    (option,) = help_text.parse("-ot,   --override-tensor <tensor name pattern>=<buffer type>,...\n" + " " * 40 + "x")
    assert (option.names, option.values, option.about) == (("-ot", "--override-tensor"), 1, "x")


def test_a_long_description_is_cut_between_words() -> None:
    (option,) = help_text.parse("--x N" + " " * 35 + "word " * 100)
    assert len(option.about) < 260
    assert option.about.endswith(" word ...")


@pytest.mark.parametrize("text", ["", "----- params -----\n", "error\n  -x  y\n", "-\n-- x\n"])
def test_no_help(text: str) -> None:
    assert help_text.parse(text) == ()
