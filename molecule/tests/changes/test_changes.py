# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A changed spec: previewed, deployed with one restart, and rolled back if it does not work."""

import json
import re

import pytest

REASON = "context_size: 8192 -> 4096"
ONLY = ("--tags", "llamacpp_instances")

# A client that asks for one stream after the other, and notes curl's exit status and the end of each answer.
CLIENT = """\
rm -f /tmp/enough /tmp/answers
while [ ! -e /tmp/enough ]; do
  rm -f /tmp/answer
  curl -sfN -m 120 -o /tmp/answer -H 'Content-Type: application/json' -d "$1" http://127.0.0.1:4403/v1/chat/completions
  echo "$? $(tail -c 16 /tmp/answer | tr -d '\\n')" >> /tmp/answers
  sleep 0.05
done
"""
STREAM = {
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": 500,
    "ignore_eos": True,
    "stream": True,
}


@pytest.fixture(scope="module", autouse=True)
def as_declared_afterwards(deploy):
    yield
    assert deploy().failed == 0


def test_check_and_diff_name_the_reason_and_change_nothing(instance, deploy):
    pid, before = instance.pid(), instance.snapshot()

    preview = deploy("--check", "--diff", *ONLY, context_size=4096)

    assert (preview.changed, preview.failed) == (1, 0), preview.output
    assert REASON in preview.output
    assert re.search(r'^-\s+"8192",\n\+\s+"4096",$', preview.output, re.MULTILINE)
    assert instance.pid() == pid
    assert instance.snapshot() == before


def test_one_restart_for_the_previewed_reason(instance, deploy):
    pid, starts = instance.pid(), instance.starts()

    done = deploy("-v", *ONLY, context_size=4096)

    assert (done.changed, done.failed) == (1, 0), done.output
    assert REASON in done.output
    assert instance.starts() == starts + 1
    assert instance.pid() != pid
    command = instance.command(instance.pid())
    assert command[command.index("-c") + 1] == "4096"


def test_a_change_truncates_no_answer(instance, deploy):
    """The old server completes the requests that it has; between the servers, requests are refused."""
    instance.host.check_output("nohup setsid sh -c %s client %s > /dev/null 2>&1 & sleep 3", CLIENT, json.dumps(STREAM))
    done = deploy(*ONLY, context_size=8192)
    instance.host.check_output("touch /tmp/enough; sleep 3")

    assert (done.changed, done.failed) == (1, 0), done.output
    assert "had to be cut" not in done.output
    answers = [line.partition(" ")[::2] for line in instance.host.check_output("cat /tmp/answers").splitlines()]
    whole = [end for status, end in answers if status == "0"]
    assert len(whole) > 1
    assert all(end.endswith("data: [DONE]") for end in whole), answers
    # 7: refused; 22: 503, the model is loading; 56: the connection was closed before the first byte of an answer.
    assert {(status, end) for status, end in answers if status != "0"} <= {("7", ""), ("22", ""), ("56", "")}, answers


def test_another_drain_timeout_restarts_nothing(instance, deploy):
    pid = instance.pid()

    done = deploy("-v", *ONLY, drain_timeout=61)

    assert (done.changed, done.failed) == (1, 0), done.output
    assert "drain_timeout: 60 -> 61" in done.output
    assert instance.pid() == pid


def test_a_failure_at_load_is_rolled_back_and_explained(instance, deploy):
    """The parser accepts the option, and the load fails."""
    before = instance.command(instance.pid())

    failed = deploy(*ONLY, args=["--jinja", "--mmproj /models/nowhere.gguf"])

    assert failed.failed == 1, failed.output
    assert "nowhere.gguf" in failed.output
    assert "Back on the release of" in failed.output
    assert "Traceback" not in failed.output
    assert instance.command(instance.pid()) == before
    assert instance.health() == 200
    folder = re.search(r"The evidence is in (\S+)\.", failed.output)[1]
    assert "nowhere.gguf" in instance.host.check_output("cat %s", f"{folder}/llama-server.log")
    assert "nowhere.gguf" in instance.host.check_output("cat %s", f"{folder}/argv.json")


def test_without_rollback_a_server_that_fails_is_stopped(instance, deploy):
    failed = deploy(*ONLY, args=["--jinja", "--mmproj /models/nowhere.gguf"], rollback=False)

    assert failed.failed == 1, failed.output
    assert "It is stopped and does not start at boot, because rollback is off." in failed.output
    assert instance.pids() == []
