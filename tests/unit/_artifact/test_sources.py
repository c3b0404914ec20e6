# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of models and images: each is one file and one line, and no other file asks which one it has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils import _artifact
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import sources as image_sources
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources.file import HostImage
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model import sources as model_sources

ROOM = Path(next(iter(_artifact.__path__)))
MODULES = ROOM.parents[1] / "modules"
KINDS = [*model_sources.SOURCES, *image_sources.SOURCES, HostImage]
# What several kinds share; see their first lines.
SHARED = {"__init__", "source", "remote", "registry", "apptainer"}


def files() -> list[Path]:
    """The files that use sources, without those that make them."""
    found = [*ROOM.rglob("*.py"), *MODULES.glob("gguf_model*.py"), MODULES / "sif_image.py"]
    return [path for path in found if path.parent.name != "sources"]


def questions(tree: ast.AST) -> Iterator[ast.AST]:
    """Where code asks which kind of source it has: a comparison of .kind or .schemes, or the name of a class."""
    classes = {kind.__name__ for kind in KINDS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
            if any(isinstance(one, ast.Attribute) and one.attr in ("kind", "schemes") for one in compared):
                yield node
        elif (isinstance(node, ast.Name) and node.id in classes) or (
            isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & classes
        ):
            yield node


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOM.parents[1])))
def test_no_other_file_asks_which_kind_of_source_it_has(path: Path) -> None:
    found = [node.lineno for node in questions(ast.parse(path.read_text()))]  # type: ignore[attr-defined]
    assert found == [], "ask the source itself: give all its classes a method"


@pytest.mark.parametrize(
    "code",
    [
        'a.source.kind == "hub"',
        '"hub" != source.kind',
        "isinstance(source, HubFiles)",
        "from .sources.url import UrlFiles",
    ],
)
def test_such_questions_are_found(code: str) -> None:
    assert list(questions(ast.parse(code)))


@pytest.mark.parametrize("sources", [model_sources, image_sources], ids=["model", "image"])
def test_each_file_of_a_source_has_its_line_in_the_factory(sources: ModuleType) -> None:
    folder = Path(str(sources.__file__)).parent
    made = {kind.__module__.rpartition(".")[2] for kind in KINDS if kind.__module__.startswith(f"{sources.__name__}.")}
    assert made == {path.stem for path in folder.glob("*.py")} - SHARED


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_source_can_do_the_same(kind: type) -> None:
    base = next(one for one in kind.__mro__ if one.__name__ in ("ModelSource", "ImageSource"))
    for name in ("shown", "problems", "identify", "fetch", "recorded"):
        assert hasattr(base, name) or name in base.__dataclass_fields__
    assert kind.fetch is not base.fetch
