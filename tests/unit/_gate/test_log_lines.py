# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a log that show why a server failed."""

from __future__ import annotations

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import log_lines

LOG = """2026-10-01 12:00:00+0000 llamacpp runner: starting aaaa
0.00.100.000 E gguf_init_from_file: an error of an earlier start
2026-10-01 12:00:01+0000 llamacpp runner: ended with exit status 1
2026-10-01 12:01:00+0000 llamacpp runner: starting bbbb
0.00.050.000 I srv    load_model: loading model
0.00.100.000 E gguf_init_from_file: failed to open GGUF file 'X' (No such file or directory)
0.00.100.500 W common_fit_params: failed to fit params
0.01.100.000 E gguf_init_from_file: failed to open GGUF file 'X' (No such file or directory)
0.01.200.000 E srv    load_model: failed to load model, 'X'
0.01.300.000 I srv    operator(): cleaning up before exit...
""".splitlines()


def test_only_this_start() -> None:
    assert log_lines.this_start(LOG, "starting bbbb") == LOG[3:]
    assert log_lines.this_start(LOG, "starting cccc") == LOG
    assert log_lines.this_start([], "x") == []


def test_the_last_of_two_starts_with_the_same_mark() -> None:
    assert log_lines.this_start(["mark", "a", "mark", "b"], "mark") == ["mark", "b"]


def test_each_error_once_and_without_its_time() -> None:
    assert log_lines.errors(log_lines.this_start(LOG, "starting bbbb")) == [
        "gguf_init_from_file: failed to open GGUF file 'X' (No such file or directory)",
        "srv    load_model: failed to load model, 'X'",
    ]


def test_the_first_errors_not_the_last() -> None:
    assert log_lines.errors([f"0.00.000.00{n} E error {n}" for n in range(9)]) == [f"error {n}" for n in range(5)]


def test_errors_without_a_level() -> None:
    lines = [
        "error: invalid argument: --bogus",
        'error while handling argument "--port": stoi',
        "FATAL:   could not open image /x.sif: no such file",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "llama-server: error while loading shared libraries: libcuda.so.1",
        "no errors here",
        "0.00.100.000 I E is for effort",
    ]
    assert log_lines.errors(lines) == lines[:5]
