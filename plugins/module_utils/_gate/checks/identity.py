# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the server is the one that was started, with its model, names and build.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from typing import Any

from ..._llama.argv import value_of
from ..._result import Problem
from ..client import WRONG_FORMAT, NotProven, wrong_format
from ..server import Server

# A build is written "0.7.0 (build 11669, commit 7e4c0a9)", "11434 (7e4c0a9)" or "b11434-7e4c0a9".
BUILDS = (re.compile(r"build (\d+)"), re.compile(r"\bb?(\d{3,})\b"))
OTHER_SERVER = "Another server answers on this port: run the task again."


def check(server: Server) -> dict[str, Any]:
    """Compare /v1/models and /props with the record; returns the build."""
    problems = [*_model(server), *_names(server), *_path(server), *_build(server)]
    if problems:
        raise NotProven(*problems)
    return {"build": server.props.get("build_info")}


def _model(server: Server) -> list[Problem]:
    """The server counts bytes and parameters of its model. They equal the GGUF's exactly if it loaded this file."""
    try:
        meta = server.models["data"][0]["meta"]
        served = {"tensor_bytes": meta["size"], "parameters": meta["n_params"]}
    except WRONG_FORMAT as error:
        raise wrong_format("/v1/models", server.models) from error
    model = server.expected.model
    return [
        Problem(
            "",
            f"The server runs another model: its {name} is {value}, expected is {model[name]} of {model.get('path')}",
            "The file was replaced while it loaded, or another server answers on this port: run the task again.",
        )
        for name, value in served.items()
        if model.get(name) and model[name] != value
    ]


def _names(server: Server) -> list[Problem]:
    alias = value_of(server.expected.arguments, "-a", "--alias")
    if alias is None:
        return []
    entry = server.models["data"][0]
    names = {entry.get("id"), *(entry.get("aliases") or [])}
    shown = ", ".join(sorted(map(str, names)))
    return [
        Problem(
            "",
            f"The API does not know the model as {name!r}, but as {shown}",
            "LLAMA_ARG_ALIAS in env sets another alias, or another server answers on this port.",
        )
        for name in (part.strip() for part in alias.split(","))
        if name and name not in names
    ]


def _path(server: Server) -> list[Problem]:
    expected = value_of(server.expected.arguments, "-m", "--model")
    try:
        found = server.props.get("model_path")
    except WRONG_FORMAT as error:
        raise wrong_format("/props", server.props) from error
    if expected is None or found is None or found == expected:
        return []
    return [Problem("", f"The server runs the model {found}, expected is {expected}", OTHER_SERVER)]


def _build(server: Server) -> list[Problem]:
    """Compare the build number that the image's --version printed with that of /props."""
    expected, found = server.expected.build, str(server.props.get("build_info") or "")
    numbers = [_number(str(expected or "")), _number(found)]
    if None in numbers or numbers[0] == numbers[1]:
        return []
    remedy = "Another server answers on this port, or the image was replaced during the start: run the task again."
    return [Problem("", f"The server is build {found}, expected is build {expected} of the image", remedy)]


def _number(text: str) -> str | None:
    """The number in a build's name; None if there is none."""
    found = [match[1] for match in (pattern.search(text) for pattern in BUILDS) if match]
    return found[0] if found else None
