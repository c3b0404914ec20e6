# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own Python environment: when a module respawns in it, and the error if that does not help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import python


class Moved(Exception):
    """The module was started again, with this Python."""


class Failed(Exception):
    """fail_json."""


class Module:
    def fail_json(self, msg: str) -> None:
        raise Failed(msg)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the host has: the library here or not, a module that was respawned or not."""
    state: dict[str, Any] = {"here": False, "respawned": False, "home": str(tmp_path)}

    def move(interpreter: str) -> None:
        raise Moved(interpreter)

    monkeypatch.setattr(python, "has_library", lambda distribution: state["here"])
    monkeypatch.setattr(python, "has_respawned", lambda: state["respawned"])
    monkeypatch.setattr(python, "respawn_module", move)
    return state


def venv(home: str) -> str:
    path = Path(python.venv_python(home))
    path.parent.mkdir(parents=True)
    path.write_text("")
    return str(path)


def ensure(host: dict[str, Any]) -> None:
    python.ensure_library(Module(), "requests", host["home"])


def test_the_library_is_here(host: dict[str, Any]) -> None:
    host["here"] = True
    venv(host["home"])
    ensure(host)
    assert python.prefer_library("requests", host["home"]) is True


def test_the_module_moves_into_the_hosts_environment(host: dict[str, Any]) -> None:
    path = venv(host["home"])
    with pytest.raises(Moved, match=path):
        ensure(host)
    with pytest.raises(Moved, match=path):
        python.prefer_library("requests", host["home"])


def test_it_moves_once(host: dict[str, Any]) -> None:
    path = venv(host["home"])
    host["respawned"] = True
    assert python.prefer_library("requests", host["home"]) is False
    with pytest.raises(Failed, match="requests") as error:
        ensure(host)
    assert path in str(error.value)
    assert "llamacpp_host" in str(error.value)


def test_there_is_no_such_environment(host: dict[str, Any]) -> None:
    assert python.prefer_library("requests", host["home"]) is False
    with pytest.raises(Failed, match=python.venv_python(host["home"])):
        ensure(host)


def test_has_library_knows_the_import_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(python.importlib.util, "find_spec", asked.append)
    assert not python.has_library("nvidia-ml-py")
    assert not python.has_library("requests")
    assert asked == ["pynvml", "requests"]
