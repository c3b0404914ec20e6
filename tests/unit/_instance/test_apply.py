# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps on a real folder: a removal is one rename, and a stop reports the requests that it cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import apply, plan
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.render import Place
from ansible_collections.gpufleet.llamacpp.tests.unit._instance.test_release import Fake, place
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record

NAME = "4403-glm-4.7-flash-q4"


@pytest.fixture
def there(tmp_path: Path) -> Place:
    (tmp_path / NAME).mkdir()
    store.write(str(tmp_path / NAME), a_record())
    return place(tmp_path, Fake())


def steps(kind: str) -> list[plan.Step]:
    return [plan.Step("x", "y", kind)]


def test_the_next_run_finishes_a_removal_that_was_cut_off(tmp_path: Path, there: Place) -> None:
    (tmp_path / f".{NAME}.removed").mkdir()
    (tmp_path / f".{NAME}.removed/instance.json").touch()
    apply.apply(there, steps("remove"), a_record())
    assert list(tmp_path.iterdir()) == []


def test_as_long_as_the_folder_is_there_its_record_is(
    tmp_path: Path, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: str, **options: Any) -> None:
        if Path(path).exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(apply.shutil, "rmtree", cut)
    with pytest.raises(KeyboardInterrupt):
        apply.apply(there, steps("remove"), a_record())
    assert not (tmp_path / NAME).exists()
    assert store.names(str(tmp_path)) == []


def test_a_stop_reports_what_it_cut(tmp_path: Path, there: Place) -> None:
    (tmp_path / NAME / "running.json").write_text(json.dumps({"cut": 3}))
    (said,) = apply.apply(there, steps("stop"), a_record())
    assert said.startswith("3 requests were still running after 60 s")
