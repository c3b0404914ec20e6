# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the files that a running server has opened were replaced since."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runner
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.observe import replaced
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import FileFacts, ModelFacts
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record, with_setup


def renamed_over(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.rename(path)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: None, []),
        (renamed_over, ["image", "key", "part-1", "part-2"]),
        # Model and image have a digest, which tells of another content; to load them anew for a touch would be a waste.
        (touched, ["key"]),
        # That a file is missing is said by the check for it.
        (Path.unlink, []),
    ],
    ids=["untouched", "renamed over", "touched", "removed"],
)
def test_what_was_replaced(change: Callable[[Path], None], told: list[str], tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("image", "part-1", "part-2", "key")]
    for path in paths:
        path.write_text("x")
    state = {"files": {str(path): runner.stamp(str(path)) for path in paths}}
    model = ModelFacts(str(paths[1]), files=tuple(FileFacts(str(path), None, None) for path in paths[1:3]))
    record = with_setup(a_record(image=str(paths[0])), model=model)
    for path in paths:
        change(path)
    assert sorted(os.path.basename(path) for path in replaced(state, record)) == told


def test_a_server_that_was_started_by_an_earlier_runner() -> None:
    assert replaced({}, a_record()) == []
    assert replaced({"files": {"/nowhere": None}}, None) == []
