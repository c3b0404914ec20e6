# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action report: what it prints, writes and returns, on the installed ansible-core."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

REPORT = "gpufleet.llamacpp.report"
FLASH = {"name": "4403-flash", "port": 4403, "state": "running", "log": ["loading", "ready"]}
FOUND = {"gpu-a": {"instances": [FLASH]}, "gpu-b": {"unreachable": True, "msg": "no route"}}
MEMORY = {"instance": "4403-flash", "gpu": 0, "need": 1 << 30, "left": 2 << 30, "free": 3 << 30, "given_back": 0}


def test_the_reports(run_tasks: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    answers, status, logs = tmp_path / "answers.json", tmp_path / "status.json", tmp_path / "new/logs"
    rollout = {"gpu-a": {"state": "deployed", "instances": ["4403-flash"]}}
    tasks = [
        {REPORT: {"kind": "status", "hosts": FOUND, "output": str(status)}, "register": "status"},
        {REPORT: {"kind": "logs", "hosts": FOUND, "output": str(logs)}, "register": "logs"},
        {REPORT: {"kind": "memory", "hosts": {"gpu-a": [MEMORY]}}, "register": "memory"},
        {REPORT: {"kind": "rollout", "hosts": rollout}, "register": "rollout"},
        {REPORT: {"kind": "rollout", "hosts": rollout}, "register": "preview", "check_mode": True},
        {REPORT: {"kind": "logs", "hosts": {"x": {"msg": "a secret"}}}, "no_log": True},
        {
            REPORT: {"kind": "status", "hosts": {}, "output": str(tmp_path / "none/x")},
            "register": "not_written",
            "ignore_errors": True,
        },
        {REPORT: {"kind": "table", "hosts": {}}, "register": "unknown", "ignore_errors": True},
        {"copy": {"content": "{{ [status, logs, preview, not_written, unknown] | to_json }}", "dest": str(answers)}},
    ]
    done = run_tasks(tasks)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout

    for lines in (
        "HOST   INSTANCE    STATE    UP  MODEL  CTX  TOK/S  RELEASE\ngpu-a  4403-flash  running  -",
        "\ngpu-b  unreachable: no route\n",
        "\ngpu-a 4403 | loading\ngpu-a 4403 | ready\ngpu-b | unreachable: no route\n",
        f"\nwritten: {logs}/gpu-a-4403-flash.log\n",
        "\ngpu-a: GiB on GPU      0\n  4403-flash         1.0\n",
        "\nHOST   OUTCOME   INSTANCES\ngpu-a  deployed  4403-flash\n1 host: 1 deployed\n",
        "\ngpu-a  would change  4403-flash\n",
    ):
        assert lines in printed
    assert "a secret" not in printed
    found = {"gpu-a": FOUND["gpu-a"], "gpu-b": {"problem": "unreachable: no route"}}
    assert json.loads(status.read_text()) == found
    assert (logs / "gpu-a-4403-flash.log").read_text() == "loading\nready\n"
    answer_status, answer_logs, preview, not_written, unknown = json.loads(answers.read_text())
    assert (answer_status["hosts"], answer_status["changed"]) == (found, False)
    assert answer_logs["files"] == [f"{logs}/gpu-a-4403-flash.log"]
    assert preview["lines"][-1] == "1 host: 1 would change"
    assert not_written["msg"] == f"output: {tmp_path}/none/x: No such file or directory."
    assert "value of kind must be one of: logs, memory, rollout, status, got: table" in unknown["msg"]
