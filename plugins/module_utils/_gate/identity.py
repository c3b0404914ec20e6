# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server is the one that was asked for: its model, its names and its build. Pure, over its own answers.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .._llama.argv import value_of
from .client import WRONG_SHAPE, wrong_shape
from .expectation import Expectation

# "0.7.0 (build 11669, commit 7e4c0a9)", "11434 (7e4c0a9)" and "b11434-7e4c0a9" are how builds are told.
BUILDS = (re.compile(r"build (\d+)"), re.compile(r"\bb?(\d{3,})\b"))


def problems(expected: Expectation, props: Any, models: Any) -> list[str]:
    """What differs in the answers of /props and /v1/models. Raises NotProven where they are not llama-server's."""
    return [
        *_model(expected, models),
        *_names(expected.arguments, models),
        *_path(expected.arguments, props),
        *_build(expected.build, props),
    ]


def _model(expected: Expectation, models: Any) -> list[str]:
    """The server's own count of bytes and parameters has to be the GGUF's, so it has loaded this file and no other."""
    try:
        meta = models["data"][0]["meta"]
        served = {"tensor_bytes": meta["size"], "parameters": meta["n_params"]}
    except WRONG_SHAPE as error:
        raise wrong_shape("/v1/models", models) from error
    model = expected.model
    return [
        f"the server holds another model: its {name} is {value}, that of {model.get('path')} is {model[name]}. The "
        "file was replaced while it loaded, or another server answers on this port: run the task again"
        for name, value in served.items()
        if model.get(name) and model[name] != value
    ]


def _names(arguments: Sequence[str], models: Any) -> list[str]:
    alias = value_of(arguments, "-a", "--alias")
    if alias is None:
        return []
    entry = models["data"][0]
    shown = {entry.get("id"), *(entry.get("aliases") or [])}
    return [
        f"the API does not know the model as {name!r}, its names are {', '.join(sorted(map(str, shown)))}. Something "
        "else sets the alias (LLAMA_ARG_ALIAS in env), or another server answers on this port"
        for name in (part.strip() for part in alias.split(","))
        if name and name not in shown
    ]


def _path(arguments: Sequence[str], props: Any) -> list[str]:
    wanted = value_of(arguments, "-m", "--model")
    try:
        found = props.get("model_path")
    except WRONG_SHAPE as error:
        raise wrong_shape("/props", props) from error
    if wanted is None or found is None or found == wanted:
        return []
    return [f"/props says that the model is {found}, it was started with {wanted}. Another server answers on this port"]


def _build(wanted: str | None, props: Any) -> list[str]:
    """The image's build is what its --version says, the server's what /props says; the number has to be the same."""
    found = str(props.get("build_info") or "")
    numbers = [_number(str(wanted or "")), _number(found)]
    if None in numbers or numbers[0] == numbers[1]:
        return []
    return [
        f"the server is build {found}, the image holds build {wanted}. Another server answers on this port, or the "
        "image was replaced while it started: run the task again"
    ]


def _number(text: str) -> str | None:
    """The number of a build in how it is told; None where there is none."""
    found = [match[1] for match in (pattern.search(text) for pattern in BUILDS) if match]
    return found[0] if found else None
