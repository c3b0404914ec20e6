# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action that runs its module as a background job, whole, on the installed ansible-core."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.progress import DEFER, FILE

PLUGINS = Path(__file__).parent / "slow_fetch"
RESTORED = {"async_val": 0, "environment": [{}], "async_dir": "~/.ansible_async"}


def test_the_module_is_a_job_only_if_it_fetches(
    run_tasks: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    done = run_tasks(
        [
            {"slow_fetch": {"fetch": True}, "register": "fetched"},
            {"slow_fetch": {"fetch": False}, "register": "unchanged"},
            {"slow_fetch": {"fetch": True}, "register": "preview", "check_mode": True},
            {"slow_fetch": {"fetch": True, "killed": True}, "register": "killed", "ignore_errors": True},
            {"copy": {"content": "{{ [fetched, unchanged, preview, killed] | to_json }}", "dest": str(answers)}},
        ],
        ANSIBLE_ACTION_PLUGINS=str(PLUGINS / "action"),
        ANSIBLE_LIBRARY=str(PLUGINS / "library"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fetched, unchanged, preview, killed = json.loads(answers.read_text())

    assert fetched == {"changed": True, "failed": False, "asked": [FILE], **RESTORED}
    assert unchanged == {"changed": False, "failed": False, "asked": [FILE, DEFER], **RESTORED}
    assert preview == {"changed": True, "failed": False, "asked": [], **RESTORED}
    assert killed["msg"].startswith("The module ended on the host without a result: it was killed")
    assert {key: killed[key] for key in RESTORED} == RESTORED
    assert "gpu1: a.gguf  copying  for " in done.stderr
    assert list((tmp_path / ".ansible_async/gpufleet.llamacpp").iterdir()) == []
    assert list((tmp_path / ".ansible/tmp").iterdir()) == []
