# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options in llama-server's command line, in all their spellings."""

from __future__ import annotations

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import argv

GIVEN = ["-c", "1", "--top_p", "0.5", "--jinja", "--ctx-size", "2", "--no-kv-unified", "-kvu"]


def test_the_value_of_an_option() -> None:
    assert argv.value_of(GIVEN, "-c", "--ctx-size") == "2"
    assert argv.value_of(GIVEN, "--top-p") == "0.5"
    assert argv.value_of(GIVEN, "--min-p") is None
    assert argv.value_of(["-c"], "-c") is None


def test_a_flag() -> None:
    assert argv.flag(GIVEN, ("-kvu",), ("--no-kv-unified",)) is True
    assert argv.flag(GIVEN[:-1], ("-kvu",), ("--no-kv-unified",)) is False
    assert argv.flag([], ("-kvu",)) is None


def test_a_number() -> None:
    assert [argv.number(text) for text in ("4", "-1", "4x", None)] == [4, -1, None, None]
