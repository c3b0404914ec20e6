# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths on a host: what they are, and that no other file spells one of them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import layout, runner

PLUGINS = Path(layout.__file__).parents[2]
NAMES = {name: value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
# A word without a dot or slash, such as "run", is a path only as an argument of os.path.join.
WORDS = {value for value in NAMES.values() if value.isalpha()}
PARTS = {*NAMES.values(), "/opt/llamacpp", "~/llamacpp", "/run/llamacpp-", "llamacpp-", ".lock", ".removed"} - WORDS


def spelled(source: str) -> Iterator[str]:
    """The paths of the layout that a program spells itself. A literal with a blank is a sentence or a template."""
    tree = ast.parse(source)
    joined = [
        argument
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "os.path.join"
        for argument in call.args
    ]
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(value, str) or " " in value or "\n" in value:
            continue
        if (value.strip("/") in WORDS and node in joined) or any(part in value for part in PARTS):
            yield f"line {node.lineno}: {value}"


@pytest.mark.parametrize(
    "source",
    [
        'os.path.join(home, "venv", "bin")',
        'f"/run/llamacpp-{name}/running.json"',
        'f"{folder}/runner.py"',
        'open("/opt/llamacpp/4403/instance.json")',
        'os.path.join(home, f".{name}.lock")',
    ],
)
def test_a_spelled_path_is_found(source: str) -> None:
    assert list(spelled(source))


def test_no_other_file_spells_a_path() -> None:
    own = {Path(module.__file__ or "") for module in (layout, runner)}
    found = [
        f"{path.relative_to(PLUGINS)}, {literal}"
        for path in sorted(PLUGINS.rglob("*.py"))
        if path not in own
        for literal in spelled(path.read_text())
    ]
    assert found == []


def test_the_runner_which_runs_alone_has_the_same_names() -> None:
    assert (runner.RECORD, runner.STATE) == (layout.RECORD, layout.STATE)


def test_no_instance_can_have_a_name_that_the_home_uses() -> None:
    top = {NAMES[name].partition("/")[0] for name in ("SHARED", "VENV", "PROGRAMS", "SUPERVISORD_SOCKET")}
    assert top | {layout.SUPERVISORD_CONF, layout.SUPERVISORD_LOG} == set(layout.RESERVED)


def test_paths_of_an_instance() -> None:
    assert layout.instance("/h", "4403") == "/h/4403"
    assert layout.instance_lock("/h", "4403") == "/h/.4403.lock"
    assert layout.instance_removed("/h", "4403") == "/h/.4403.removed"
    assert layout.runtime("4403") == "/run/llamacpp-4403"
    assert layout.venv_python("/h") == "/h/venv/bin/python"


@pytest.mark.parametrize(("uid", "home"), [(0, "/opt/llamacpp"), (1000, "/home/o/llamacpp")])
def test_the_default_home(monkeypatch: pytest.MonkeyPatch, uid: int, home: str) -> None:
    monkeypatch.setenv("HOME", "/home/o")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert layout.default_home() == home
