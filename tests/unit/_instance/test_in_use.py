# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What uses a file: records in a home, and real processes that have it open or in their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import process
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import in_use
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import FileFacts, ImageFacts, ModelFacts
from ansible_collections.gpufleet.llamacpp.plugins.modules import gguf_model, sif_image
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.registry.registry_server import sif
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record, with_setup

HOLDS = "import sys; file = open(sys.argv[1], 'rb'); print(flush=True); sys.stdin.read()"
MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    # Python's own copy of the handle; llama-server has none.
import os
for one in os.listdir("/proc/self/fd"):
    if int(one) > 2:
        try: os.close(int(one))
        except OSError: pass
print(flush=True); sys.stdin.read()
"""


@contextmanager
def holder(path: Path, code: str = HOLDS) -> Iterator[int]:
    """A process that has the file open."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield child.pid


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shared" / "x.sif"
    path.parent.mkdir()
    path.write_bytes(sif())
    return path


def declare(home: Path, name: str, image: Path, model: Any = "/data/m.gguf", last: Path | None = None) -> None:
    value = a_record(name=name, image=str(image), model=str(model), release=True)
    files = (FileFacts(str(model), None, None),)
    value = with_setup(value, image=ImageFacts(str(image)), model=ModelFacts(str(model), files=files))
    before = a_record(name=name, image=str(last or image), model=str(model)).setup
    before = replace(before, image=ImageFacts(str(last or image)), model=value.model)
    assert value.release
    (home / name).mkdir()
    store.write(str(home / name), replace(value, release=replace(value.release, setup=before)))


def test_nobody(tmp_path: Path, file: Path) -> None:
    declare(tmp_path, "one", tmp_path / "other.sif")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "instance.json").write_text("{")
    assert in_use.problems(str(tmp_path), [str(file)]) == []
    assert in_use.problems(str(tmp_path / "nowhere"), [str(file)]) == []


def test_instances_by_their_records(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link.sif"
    link.symlink_to(file)
    declare(tmp_path, "one", link)
    declare(tmp_path, "two", tmp_path / "new.sif", last=file)
    declare(tmp_path, "three", tmp_path / "new.sif", file)
    assert in_use.instances(str(tmp_path), [str(file)]) == [
        ("one", "image", "of the instance"),
        ("three", "model", "of the instance"),
        ("two", "image", "of the last release, which a rollback needs, of the instance"),
    ]
    first, second, third = in_use.problems(str(tmp_path), [str(file)])
    assert str(first) == (
        f"path: {file} is the image of the instance one. Deploy that with another image, or remove it, with "
        "llamacpp_instance; or use force: true."
    )
    assert "is the model of the instance three." in str(second)
    assert "is the image of the last release, which a rollback needs, of the instance two." in str(third)
    file.unlink()
    assert in_use.problems(str(tmp_path), [str(file)]) == []


@pytest.mark.parametrize("code", [HOLDS, MAPS], ids=["open", "mapped"])
def test_a_process(tmp_path: Path, file: Path, code: str) -> None:
    with holder(file, code) as pid:
        (problem,) = in_use.problems(str(tmp_path), [str(tmp_path / "absent"), str(file)])
    assert problem.text.startswith(f"{file} is open in pid {pid} ({sys.executable}")
    assert in_use.problems(str(tmp_path), [str(file)]) == []


def test_the_processes_of_an_instance_are_not_told_beside_it(tmp_path: Path, file: Path) -> None:
    declare(tmp_path, "one", file)
    with holder(file) as pid:
        assert len(in_use.problems(str(tmp_path), [str(file)])) == 2
        state = {"runner_pid": pid, "runner_start": process.start_ticks(pid)}
        (tmp_path / "one" / "running.json").write_text(json.dumps(state))
        assert len(in_use.problems(str(tmp_path), [str(file)])) == 1


@pytest.mark.parametrize("module", [sif_image, gguf_model], ids=["sif_image", "gguf_model"])
def test_the_modules_refuse_and_can_be_forced(run_module: Any, tmp_path: Path, file: Path, module: Any) -> None:
    args = {"path": str(file), "state": "absent", "home": str(tmp_path)}
    declare(tmp_path, "one", file, file)
    for check in (True, False):
        refused = run_module(module, args, check=check)
        assert refused["failed"]
        assert f"{file} is the model of the instance one." in refused["msg"]
        assert file.exists()
    assert run_module(module, {**args, "force": True}, check=True)["changed"]
    assert file.exists()
    assert run_module(module, {**args, "force": True})["changed"]
    assert not os.path.exists(file)
    # What is gone is nobody's.
    assert not run_module(module, args)["failed"]
