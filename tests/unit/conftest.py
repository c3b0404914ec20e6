# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests share: a module run as Ansible runs it, and the proof that it is the checkout that is tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]


def pytest_configure() -> None:
    """Stop at once where Python finds another copy of the collection than this one, or none."""
    try:
        from ansible_collections.gpufleet.llamacpp.plugins.module_utils import _result
    except ImportError:
        raise pytest.UsageError(
            "The collection is not on Python's path: run `make unit`, or `make venv` once."
        ) from None
    found = Path(str(_result.__file__)).resolve().parents[2]
    if found != ROOT:
        raise pytest.UsageError(f"Python finds another copy of the collection, {found}, and not {ROOT}.")


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a module's main() in this process and return the result that it prints; ``failed`` is true where it failed.

    ``run_module(gguf_model, {"path": "/models/a.gguf"}, check=True, diff=True)``. An exception that is no module result
    is raised as it is: on a host it would be a traceback.
    """

    def run(module: ModuleType, args: dict[str, Any], *, check: bool = False, diff: bool = False) -> dict[str, Any]:
        capsys.readouterr()
        with (
            patch_module_args({**args, "_ansible_check_mode": check, "_ansible_diff": diff}),
            pytest.raises(SystemExit) as ended,
        ):
            module.main()
        printed = capsys.readouterr().out
        result: dict[str, Any] = json.loads(printed)
        result.setdefault("failed", bool(ended.value.code))
        return result

    return run


@pytest.fixture
def run_tasks(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run tasks on the control node with the installed ansible-core, in the home ``tmp_path``.

    ``run_tasks([{"ansible.builtin.ping": {}}], "--check", ANSIBLE_LIBRARY="modules")``.
    """

    def run(tasks: list[dict[str, Any]], *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        playbook = tmp_path / "playbook.json"
        playbook.write_text(json.dumps([{"hosts": "gpu1", "gather_facts": False, "tasks": tasks}]))
        settings = {
            "HOME": str(tmp_path),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "COLUMNS": "100",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        argv = [sys.executable, "-m", "ansible", "playbook", "-i", "gpu1,", "-c", "local", *words, str(playbook)]
        everything = {**kept, **settings, **environment}
        return subprocess.run(argv, cwd=tmp_path, env=everything, check=False, capture_output=True, text=True)

    return run
