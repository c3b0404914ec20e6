# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter declared: how the layers are merged, and all problems of a declaration at once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.llamacpp.plugins.filter import declared as plugin

declared = plugin.FilterModule().filters()["declared"]

ONE = {"name": "one", "port": 1, "model": "a.gguf"}
TWO = {"name": "two", "port": 2, "model": {"path": "/srv/b.gguf", "url": "https://x/b.gguf"}}


def test_the_order_of_the_layers() -> None:
    defaults = {"threads": 8, "host": "0.0.0.0", "env": {"A": "default", "B": "default"}}
    entry = {**ONE, "threads": 16, "env": {"B": "entry", "C": "entry"}}
    overrides = {"one": {"threads": 2, "env": {"C": "host"}}, "elsewhere": {"threads": 1}}
    (whole,) = declared([entry], defaults, overrides)
    assert whole["threads"] == 2
    assert whole["host"] == "0.0.0.0"
    assert whole["env"] == {"A": "default", "B": "entry", "C": "host"}
    assert entry["threads"] == 16 and defaults["threads"] == 8


def test_lists_are_replaced() -> None:
    (whole,) = declared([{**ONE, "args": ["--jinja"]}], {"args": ["--a", "--b"]}, {"one": {"gpus": [0]}})
    assert (whole["args"], whole["gpus"]) == (["--jinja"], [0])


@pytest.mark.parametrize(
    ("model", "override", "folder", "expected"),
    [
        ("a.gguf", None, "/data/models", {"path": "/data/models/a.gguf"}),
        ("a.gguf", None, "/srv/", {"path": "/srv/a.gguf"}),
        ("/x/a.gguf", None, "/srv", {"path": "/x/a.gguf"}),
        ("~/a.gguf", None, "/srv", {"path": "~/a.gguf"}),
        ({"path": "a.gguf", "url": "u"}, None, "/srv", {"path": "/srv/a.gguf", "url": "u"}),
        ({"path": "a.gguf", "url": "u"}, {"path": "b.gguf"}, "/srv", {"path": "/srv/b.gguf", "url": "u"}),
        ({"path": "a.gguf", "url": "u"}, "b.gguf", "/srv", {"path": "/srv/b.gguf", "url": "u"}),
        ("a.gguf", {"url": "near"}, "/srv", {"path": "/srv/a.gguf", "url": "near"}),
    ],
)
def test_the_model(model: Any, override: Any, folder: str, expected: dict[str, str]) -> None:
    overrides = {"one": {"model": override}} if override else None
    assert declared([{**ONE, "model": model}], None, overrides, folder)[0]["model"] == expected


def test_nothing() -> None:
    assert declared([]) == []
    assert declared([], None, {"one": None}) == []


@pytest.mark.parametrize("only", ["two", "2", 2])
def test_only_one(only: Any) -> None:
    assert [one["name"] for one in declared([ONE, TWO], only=only)] == ["two"]


@pytest.mark.parametrize("only", [None, ""])
def test_all_of_them(only: Any) -> None:
    assert [one["name"] for one in declared([ONE, TWO], only=only)] == ["one", "two"]


def problem(*args: Any, **more: Any) -> str:
    with pytest.raises(AnsibleFilterError) as error:
        declared(*args, **more)
    return str(error.value)


def test_only_one_that_is_not_declared() -> None:
    assert problem([ONE, TWO], only="three") == (
        "No declared instance has the name or port 'three'. Declared are: one (1), two (2)."
    )


def test_all_problems_at_once() -> None:
    entries = [
        {},
        {"name": "a", "model": "m"},
        {"name": "b", "port": 1},
        {"name": "b", "port": "1", "model": "m"},
        {"name": "c", "port": 1, "model": {"url": "u"}},
    ]
    assert problem(entries) == (
        "The declared instances cannot be deployed: An instance without a name lacks name, port, model.path. "
        "a lacks port. b lacks model.path. c lacks model.path. 2 instances have the name b. "
        "b, b and c share the port 1."
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (({"name": "one"},), "llamacpp_instances must be a list, not {'name': 'one'}."),
        (("one",), "llamacpp_instances must be a list, not 'one'."),
        ((None,), "llamacpp_instances must be a list, not None."),
        ((["one"],), "An entry of llamacpp_instances must be a mapping, not 'one'."),
        (([{**ONE, "model": 7}],), "An entry of llamacpp_instances must be a mapping, not {'name': 'one'"),
        (([ONE], ["x"]), "llamacpp_instance_defaults must be a mapping, not ['x']."),
        (([ONE], {}, ["x"]), "llamacpp_instance_overrides must be a mapping, not ['x']."),
        (([ONE], {}, {"one": "x"}), "llamacpp_instance_overrides[one] must be a mapping, not 'x'."),
        (([ONE], {}, {"elsewhere": 1}), "llamacpp_instance_overrides[elsewhere] must be a mapping, not 1."),
    ],
)
def test_another_shape(args: tuple[Any, ...], said: str) -> None:
    assert said in problem(*args)


def test_all_wrong_shapes_at_once() -> None:
    said = problem(["x", ONE], 1, {"one": 2})
    assert said.count("must be a mapping") == 3


def test_an_unknown_key_is_refused() -> None:
    """Otherwise the server would run without the mistyped option."""
    wrong = {**ONE, "ctx_size": 1, "gpu": [0], "model": {"path": "a.gguf", "sha": "x"}}
    with pytest.raises(AnsibleFilterError) as refused:
        declared([wrong])
    said = str(refused.value)
    assert "one has no option ctx_size. Did you mean context_size?" in said
    assert "one has no option gpu. Did you mean gpus?" in said
    assert "the model of one has no option sha." in said
