# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a log that tell why, and the files that are kept of a failure."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import evidence
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import PROPS, Drop, Hang, Server, idle

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
    assert evidence.this_start(LOG, "starting bbbb") == LOG[3:]
    assert evidence.this_start(LOG, "starting cccc") == LOG
    assert evidence.this_start([], "x") == []


def test_the_last_of_two_starts_with_one_mark() -> None:
    assert evidence.this_start(["mark", "a", "mark", "b"], "mark") == ["mark", "b"]


def test_errors_once_each_and_without_their_time() -> None:
    assert evidence.error_lines(evidence.this_start(LOG, "starting bbbb")) == [
        "gguf_init_from_file: failed to open GGUF file 'X' (No such file or directory)",
        "srv    load_model: failed to load model, 'X'",
    ]


def test_the_first_errors_not_the_last() -> None:
    assert evidence.error_lines([f"0.00.000.00{n} E error {n}" for n in range(9)]) == [f"error {n}" for n in range(5)]


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
    assert evidence.error_lines(lines) == lines[:5]


def test_explain() -> None:
    assert evidence.explain("It ended", LOG[3:7]) == (
        "It ended. The log says:\n    gguf_init_from_file: failed to open GGUF file 'X' (No such file or directory)"
    )
    assert evidence.explain("It ended", ["", "one", "two"]) == "It ended. The log says:\n    one\n    two"
    assert evidence.explain("It ended", ["", " "]) == "It ended. Its log is empty."
    assert evidence.explain("It ended", [f"line {n}" for n in range(9)]).count("\n") == 5
    assert len(evidence.explain("It ended", ["x" * 1000])) < 400


ARGV = ["apptainer", "exec", "--env", "HF_TOKEN=hf_1=2", "--env", "CUDA_VISIBLE_DEVICES=0", "x.sif", "llama-server"]
NAMES = {"llama-server.log", "argv.json", "running.json", "gpus.json", *evidence.QUESTIONS}


def test_what_is_kept_of_a_server_that_still_answers(server: Server) -> None:
    server.key = "secret"
    server.answers["/slots"] = [{**idle(0), "prompt": "my private words", "generated": "x"}]
    server.answers["/metrics"] = b"llamacpp:requests_processing 0"
    account = {"launch": "abc", "exit": {"status": 1}}
    files = evidence.collect(server.url, "secret", ["one secret", "two"], ARGV, account, [{"index": 0}])
    assert set(files) == NAMES
    assert files["llama-server.log"] == b"one (hidden)\ntwo\n"
    assert json.loads(files["props.json"]) == PROPS
    assert json.loads(files["running.json"]) == account
    assert json.loads(files["gpus.json"]) == [{"index": 0}]
    assert json.loads(files["slots.json"]) == [{**idle(0), "prompt": "(16 characters)", "generated": "(1 characters)"}]
    assert files["metrics.txt"] == b"llamacpp:requests_processing 0"
    assert not [name for name, data in files.items() if b"secret" in data or b"hf_1" in data or b"private" in data]


def test_what_is_kept_of_a_server_that_is_gone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "ASK_TIMEOUT", 0.2)
    server.answers["/props"] = Drop
    server.answers["/slots"] = Hang
    server.answers["/v1/models"] = (503, {"error": {"message": "Loading model"}})
    files = evidence.collect(server.url, None, [], ARGV, {}, None)
    assert set(files) == NAMES
    assert files["props.json"].startswith(b"No answer within 0.2 s: ")
    assert files["slots.json"].startswith(b"No answer within 0.2 s: ")
    assert files["models.json"].startswith(b"HTTP 503\n{")
    assert files["metrics.txt"].startswith(b"HTTP 501\n{")
    assert files["gpus.json"] == b"null\n"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--api-key", "a", "-c", "1"], ["--api-key", "(hidden)", "-c", "1"]),
        (["--api_key", "a"], ["--api_key", "(hidden)"]),
        (["--api-key-file", "/k"], ["--api-key-file", "/k"]),
        (["--env", "AWS_SECRET_ACCESS_KEY=a\nb"], ["--env", "AWS_SECRET_ACCESS_KEY=(hidden)"]),
        (["--env", "LANG=C", "token=a", "--temp", "1"], ["--env", "LANG=C", "token=(hidden)", "--temp", "1"]),
    ],
    ids=str,
)
def test_secrets_in_an_argument_list(argv: list[str], shown: list[str]) -> None:
    assert evidence.redact(argv) == shown
