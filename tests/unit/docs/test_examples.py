# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The YAML examples of pages, modules and filters are valid, and none opens a server to the network without a key."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "roles").glob("*/README.md"))]
MODULES = sorted((ROOT / "plugins/modules").glob("*.py"))
FILTERS = sorted((ROOT / "plugins/filter").glob("*.yml"))
BLOCK = re.compile(r"^(?P<indent> *)```ya?ml\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
EVERYWHERE = ("0.0.0.0", "::", "[::]")
# A line that opens the server to the network and says why.
EXPLAINED = re.compile(r"^[ -]*host: \S+ +# \S", re.MULTILINE)


def examples(file: Path) -> Iterator[str]:
    """The YAML examples of a file, as text."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield from (textwrap.dedent(match["text"]) for match in BLOCK.finditer(text))
    elif file.suffix == ".yml":
        yield yaml.safe_load(text)["EXAMPLES"]
    else:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLES":
                yield ast.literal_eval(node.value)


def open_without_key(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in an example that lets llama-server listen on all addresses without a key."""
    if isinstance(value, dict):
        if value.get("host") in EVERYWHERE and "api_key_file" not in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from open_without_key(part)


@pytest.mark.parametrize("file", [*PAGES, *MODULES, *FILTERS], ids=lambda file: str(file.relative_to(ROOT)))
def test_no_example_opens_a_server_without_a_key(file: Path) -> None:
    for example in examples(file):
        found = list(open_without_key(yaml.safe_load(example)))
        assert not found or len(EXPLAINED.findall(example)) >= len(found), found


def test_the_check_sees_what_it_has_to() -> None:
    """An example as it once stood in the README."""
    bad = "llamacpp_instances:\n  - name: x\n    host: 0.0.0.0\n    port: 1\n"
    assert len(list(open_without_key(yaml.safe_load(bad)))) == 1
    assert not EXPLAINED.search(bad)
    assert not list(open_without_key(yaml.safe_load(bad + "    api_key_file: /keys\n")))
    assert EXPLAINED.search(bad.replace("0.0.0.0", "0.0.0.0 # a proxy in front asks for the key"))


def test_there_are_examples() -> None:
    for file in (ROOT / "README.md", ROOT / "docs/tutorial.md", *MODULES, *FILTERS):
        assert list(examples(file)), file
