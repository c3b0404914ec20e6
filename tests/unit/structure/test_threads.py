# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads: a class of ours must not use a name that Python's own Thread has, in any version that hosts may have."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
# What threading.Thread of CPython 3.9 to 3.14 keeps in its instances. One version alone does not have all of them.
OF_PYTHON = {
    *("_args", "_context", "_daemonic", "_handle", "_ident", "_initialized", "_invoke_excepthook", "_is_stopped"),
    *("_kwargs", "_name", "_native_id", "_os_thread_handle", "_started", "_stderr", "_target", "_tstate_lock"),
}


def attributes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The class and the attribute of each assignment to self in a class of threads."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or not any("Thread" in ast.unparse(base) for base in node.bases):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                yield node.name, inner.attr


def test_the_names_of_this_python_are_listed() -> None:
    assert set(vars(threading.current_thread())) <= OF_PYTHON


def test_no_thread_overwrites_what_python_keeps_in_it() -> None:
    found = [pair for path in sorted(PLUGINS.rglob("*.py")) for pair in attributes(ast.parse(path.read_text()))]
    assert found
    assert [pair for pair in found if pair[1] in OF_PYTHON] == []


def test_such_a_name_is_found() -> None:
    code = "class Sync(threading.Thread):\n    def __init__(self):\n        self._handle = 3\n"
    assert list(attributes(ast.parse(code))) == [("Sync", "_handle")]
