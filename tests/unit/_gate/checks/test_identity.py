# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model, names, path and build: what the server reports against what was started."""

from __future__ import annotations

# pylint: disable=dangerous-default-value # no test changes them
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.checks import identity
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import ARGUMENTS, MODELS, PROPS, changed
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.sample import EXPECTED, a_server


def problems(expected: Expectation = EXPECTED, props: Any = PROPS, models: Any = MODELS) -> Sequence[str]:
    try:
        identity.check(a_server(expected=expected, props=props, models=models))
    except NotProven as error:
        return [str(problem) for problem in error.problems]
    return []


def test_the_same_server() -> None:
    assert identity.check(a_server()) == {"build": "b11669-Debian"}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("size", 1, "its tensor_bytes is 1, expected is 96576768 of /data/models/a.gguf."),
        ("n_params", 2, "its parameters is 2, expected is 134515008 of /data/models/a.gguf."),
    ],
)
def test_another_model(key: str, value: int, text: str) -> None:
    (problem,) = problems(models=changed(MODELS, "data", 0, "meta", key, to=value))
    assert text in problem


def test_an_unknown_value_of_the_model_is_not_compared() -> None:
    unknown = Expectation(model={"path": "/x", "tensor_bytes": None})
    assert problems(unknown, models=changed(MODELS, "data", 0, "meta", "size", to=1)) == []


@pytest.mark.parametrize(
    ("expected", "found", "differs"),
    [
        ("11669", "b11669-Debian", False),
        ("11668", "b11669-Debian", True),
        ("b11669", "b11669-7e4c0a9", False),
        ("0.7.0 (build 11669, commit Debian)", "b11669-Debian", False),
        ("1.10.200 (build 11669, commit 7e4c0a9)", "b11669-7e4c0a9", False),
        ("0.7.0 (build 11668, commit Debian)", "b11669-Debian", True),
        ("10434 (7e4c0a9)", "b10434-7e4c0a9", False),
        (None, "b11669-Debian", False),
        ("11669", None, False),
        ("11669", "0-unknown", False),
    ],
)
def test_the_build(expected: str | None, found: str | None, differs: bool) -> None:
    text = f"The server is build {found}, expected is build {expected} of the image."
    reported = problems(replace(EXPECTED, build=expected), {**PROPS, "build_info": found})
    assert [text in problem for problem in reported] == ([True] if differs else [])


def test_another_path() -> None:
    (problem,) = problems(props={**PROPS, "model_path": "/models/b.gguf"})
    assert problem.startswith("The server runs the model /models/b.gguf, expected is /models/a.gguf.")


@pytest.mark.parametrize(
    ("alias", "missing"), [("zeta,alpha", ""), ("alpha", ""), ("beta", "beta"), ("alpha,beta", "beta")]
)
def test_the_alias(alias: str, missing: str) -> None:
    """llama-server sorts the aliases, and its name is the first of them."""
    models = changed(MODELS, "data", 0, "aliases", to=["alpha", "zeta"])
    models = changed(models, "data", 0, "id", to="alpha")
    found = problems(replace(EXPECTED, arguments=(*ARGUMENTS, "--alias", alias)), models=models)
    text = f"The API does not know the model as {missing!r}, but as alpha, zeta."
    assert [text in problem for problem in found] == ([True] if missing else [])
