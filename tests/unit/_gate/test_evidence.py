# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that are kept of a failed server, without secrets."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import evidence
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import PROPS, Drop, Hang, Server, idle

ARGV = ["apptainer", "exec", "--env", "HF_TOKEN=hf_1=2", "--env", "CUDA_VISIBLE_DEVICES=0", "x.sif", "llama-server"]
NAMES = {"llama-server.log", "argv.json", "running.json", "gpus.json", *evidence.ENDPOINTS}


def test_a_server_that_still_answers(server: Server) -> None:
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


def test_a_server_that_does_not_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "ASK_TIMEOUT", 0.2)
    server.answers["/props"] = Drop
    server.answers["/slots"] = Hang
    server.answers["/v1/models"] = (503, {"error": {"message": "Loading model"}})
    files = evidence.collect(server.url, None, [], ARGV, {}, None)
    assert set(files) == NAMES
    assert files["props.json"].startswith(b"No reply within 0.2 s: ")
    assert files["slots.json"].startswith(b"No reply within 0.2 s: ")
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
