# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Problems are data: no code takes a message apart, and a problem's text and remedy have one form."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
# Methods that look into a text or change it.
SURGERY = {
    *("replace", "split", "rsplit", "splitlines", "partition", "rpartition", "startswith", "endswith", "strip"),
    *("lstrip", "rstrip", "removeprefix", "removesuffix", "find", "index"),
}
# Names that hold messages, by the house's own habits.
MESSAGES = {
    *("problem", "problems", "message", "messages", "warning", "warnings", "refusal", "refusals", "remedy"),
    *("error", "failure"),
}
# Attributes of errors and problems that are messages.
PARTS = {"text", "remedy", "msg", "problems", "refusals", "warnings", "why", "what"}
# Functions that have to read text that this collection did not write, each with whose text it is.
OTHERS = {
    ("module_utils/_fetch/http_range.py", "_error_text"): "requests' message, from which secrets are removed",
    ("module_utils/_llama/lint_server.py", "_plain"): "llama-server's messages",
    ("plugin_utils/_results.py", "instances_of"): "ssh's message, of which one line is shown",
    ("module_utils/_instance/host_plan.py", "_validation_problems"): "Ansible's messages end with a period",
}


def is_message(node: ast.expr) -> bool:
    """Whether the expression is a message: ``problem``, ``str(error)``, ``problems[0]``, ``error.text``."""
    if isinstance(node, ast.Name):
        return node.id in MESSAGES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("str", "repr") and any(map(is_message, node.args))
    if isinstance(node, ast.Attribute):
        return node.attr in PARTS and is_message(node.value)
    return isinstance(node, ast.Subscript) and is_message(node.value)


def operations(tree: ast.AST) -> Iterator[tuple[str, int, str]]:
    """Where a message is taken apart or compared: the function, the line, and how."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in SURGERY and is_message(node.func.value):
                    yield function.name, node.lineno, node.func.attr
                if node.func.attr in ("match", "search", "fullmatch", "sub") and any(map(is_message, node.args)):
                    yield function.name, node.lineno, f"re.{node.func.attr}"
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                texts = [side for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)]
                if texts and any(map(is_message, sides)):
                    yield function.name, node.lineno, "comparison with a text"


@pytest.mark.parametrize(
    "code",
    [
        'problem.startswith("port: ")',
        'str(error).replace("a", "b")',
        'problems[0].split(":")',
        'error.problems[0].text.rstrip(".")',
        're.sub("a", "b", message)',
        '"NUL byte" in problem',
        'refusal == "no"',
    ],
)
def test_what_takes_a_message_apart_is_found(code: str) -> None:
    assert list(operations(ast.parse(f"def f():\n    return {code}\n")))


def test_no_logic_hangs_on_the_wording_of_a_message() -> None:
    found = []
    for path in sorted(PLUGINS.rglob("*.py")):
        name = str(path.relative_to(PLUGINS))
        for function, line, how in operations(ast.parse(path.read_text(encoding="utf-8"))):
            if (name, function) not in OTHERS:
                found.append(f"{name}:{line} {how} in {function}")
    assert found == []


def constant_end(node: ast.expr) -> str:
    """The last piece of a text that is written in the code; "" for one that is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return constant_end(node.values[-1])
    return ""


def test_a_text_has_no_final_period_and_a_remedy_has_one() -> None:
    wrong = []
    for path in sorted(PLUGINS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                given = dict(zip(("option", "text", "remedy"), node.args))
                given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
                text, remedy = (constant_end(given[key]) if key in given else "" for key in ("text", "remedy"))
                if text.endswith(".") or (remedy and not remedy.endswith((".", "?", ")"))):
                    wrong.append(f"{path.relative_to(PLUGINS)}:{node.lineno} {text} {remedy}")
    assert wrong == []
