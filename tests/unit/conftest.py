# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests share: a module run as Ansible runs it, and the proof that it is the checkout that is tested."""

from __future__ import annotations

import json
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
