# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rooms of module_utils: imports go down, never in a circle; rooms and files stay small; a class name is unique."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3] / "plugins/module_utils"
# From the top down. A room may import the rooms below it, and every file may import _result.
ORDER = (
    *("_instance", "_router", "_preflight", "_gate", "_spec", "_llama", "_artifact", "_gguf", "_fetch", "_host"),
    "_result",
)
FILES, LINES = 16, 400
# It is copied beside each instance, and works there without the collection.
ALONE = "_host/runner.py"


def sources() -> dict[str, Path]:
    """Every file of module_utils by its dotted name; a package by the name of its folder."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The files of module_utils that a file imports, also inside its functions."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            for alias in node.names:
                for target in (".".join(filter(None, [*base, alias.name])), ".".join(filter(None, base))):
                    if target in known and target != name:
                        yield target
                        break


def graph() -> dict[str, set[str]]:
    known = sources()
    return {name: set(imports(name, path, known)) for name, path in known.items()}


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """One circle, or nothing."""
    done: set[str] = set()

    def walk(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name not in done:
            for other in sorted(edges.get(name, ())):
                found = walk(other, [*above, name])
                if found:
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_go_down() -> None:
    rank = {room: number for number, room in enumerate(ORDER)}
    upward = [
        f"{name} -> {other}"
        for name, others in graph().items()
        for other in others
        if rank[name.split(".")[0]] > rank[other.split(".")[0]]
    ]
    assert upward == []


def test_no_file_imports_itself_by_a_detour() -> None:
    assert circle(graph()) == []


def test_no_folder_imports_itself_by_a_detour() -> None:
    """A folder and the folders in it are one: _host and _host/manager may know each other."""
    edges: dict[str, set[str]] = defaultdict(set)
    for name, others in graph().items():
        for other in others:
            one, two = (".".join(each.split(".")[:-1]) or each for each in (name, other))
            if not one.startswith(two) and not two.startswith(one):
                edges[one].add(two)
    assert circle(edges) == []


def test_imports_are_relative() -> None:
    absolute = [
        str(path.relative_to(ROOT))
        for path in (*ROOT.rglob("*.py"), *(ROOT.parent / "modules").glob("*.py"))
        if "ansible_collections" in path.read_text(encoding="utf-8")
    ]
    assert absolute == []


def test_rooms_and_files_are_small() -> None:
    folders: dict[Path, int] = defaultdict(int)
    long = []
    for path in sources().values():
        folders[path.parent] += path.name != "__init__.py"
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LINES and str(path.relative_to(ROOT)) != ALONE:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
    assert [str(folder) for folder, count in folders.items() if count > FILES] == []
    assert long == []


def test_a_class_name_means_one_thing() -> None:
    places = defaultdict(list)
    for path in ROOT.parent.rglob("*.py"):
        if path == ROOT / ALONE:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name not in ("ActionModule", "FilterModule"):
                places[node.name.lstrip("_")].append(str(path.relative_to(ROOT.parent)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
