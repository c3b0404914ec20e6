# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host has for a spec, by small real files and a runtime that says what the test wants."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import file_record, seen_file
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import sif
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.inspect import ImageReading
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.resolve import Image
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runtime
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import files as needed_files
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import spec
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import ImageFacts, ModelFacts, Record
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import printed
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder as build
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import SERVER, a_record, params, with_setup

SIF = bytes(32) + sif.MAGIC + b"image"


class Host:
    """A folder with image and model, and what running something in the image says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "m" / "a.gguf"
        self.image = folder / "x.sif"
        self.keys = folder / "keys"
        self.model.parent.mkdir()
        self.model.write_bytes(build.model())
        self.image.write_bytes(SIF)
        self.answer: tuple[int, str, str] = (0, printed(SERVER), "")
        self.readings: dict[str, ImageReading] = {}
        self.asked: list[list[str]] = []

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(list(argv))
        return self.answer

    def look(self, last: Record | None = None, digest: str | None = None, **changes: Any) -> needed_files.FoundFiles:
        options = params(image=str(self.image), model=str(self.model), binds=[], **changes)
        return needed_files.find_files(
            spec.parse(options, "/h"), self.run, last, self.found(digest), self.readings.__setitem__
        )

    def found(self, digest: str | None = None) -> Image:
        return Image(str(self.image), sha256=digest)

    def record(self, **changes: Any) -> Record:
        found = self.look(**changes)
        image = ImageFacts.from_json(found.image) if found.image else None
        model = ModelFacts.from_json(found.model) if found.model else None
        return with_setup(a_record(), image=image, model=model)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(runtime, "find", lambda: "/usr/bin/apptainer")
    return Host(tmp_path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_everything_is_there(host: Host) -> None:
    found = host.look()
    assert (found.runtime, found.missing, found.problems) == ("/usr/bin/apptainer", (), ())
    assert found.image == {
        "path": str(host.image),
        "stamp": file_record.stamp(str(host.image)),
        "sha256": digest(SIF),
        "server_path": SERVER,
        "build": None,
        "options_digest": None,
        "source": None,
        "digest": None,
    }
    assert found.model
    assert found.model["sha256"] == digest(build.model())
    assert (found.model["name"], found.model["quantization"], found.model["context_length"]) == ("Tiny", "Q4_1", 4096)
    assert found.model["tensor_bytes"] == 532
    assert found.model["files"][0]["stamp"] == file_record.stamp(str(host.model))


def test_nothing_is_there(host: Host) -> None:
    host.image.unlink()
    host.model.unlink()
    found = host.look(api_key_file=str(host.keys))
    assert found.problems == ()
    assert [problem.option for problem in found.missing] == ["model", "image", "api_key_file"]
    assert "gpufleet.llamacpp.gguf_model" in found.missing[0].remedy
    assert (found.image, found.model) == (None, None)


def test_no_runtime(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find", lambda: None)
    (problem,) = host.look().problems
    assert str(problem).startswith("This host has neither apptainer nor singularity (searched PATH, /usr/local/bin, ")
    assert host.asked == []


def test_a_rerun_reads_and_asks_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    last = host.record()
    host.asked.clear()

    def reads(path: str) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(file_record, "hash_file", reads)
    monkeypatch.setattr(seen_file, "hash_file", reads)
    found = host.look(last)
    assert found.image and found.model and last.image and last.model
    assert (found.image, found.model) == (last.image.to_json(), last.model.to_json())
    assert host.asked == []


def test_a_touched_image_is_read_and_is_the_same(host: Host) -> None:
    last = host.record()
    host.asked.clear()
    os.utime(host.image)
    found = host.look(last)
    assert last.image
    assert found.image == {**last.image.to_json(), "stamp": file_record.stamp(str(host.image))}
    assert host.asked == []


def test_a_replaced_image_is_asked_again(host: Host) -> None:
    last = host.record()
    host.image.write_bytes(SIF + b"2")
    host.answer = (0, printed("/elsewhere/llama-server"), "")
    found = host.look(last)
    assert found.image and (found.image["sha256"], found.image["server_path"]) == (
        digest(SIF + b"2"),
        "/elsewhere/llama-server",
    )


def test_a_replaced_model_is_read_again(host: Host) -> None:
    last = host.record()
    other = build.model(data=build.DATA[::-1])
    host.model.write_bytes(other)
    found = host.look(last)
    assert found.model and found.model["sha256"] == digest(other)


@pytest.mark.parametrize("facts", [{}, {"files": None, "path": 1}])
def test_the_files_are_read_where_the_record_knows_little(host: Host, facts: dict[str, Any]) -> None:
    last = with_setup(a_record(), image=ImageFacts.from_json(facts), model=ModelFacts.from_json(facts))
    found = host.look(last)
    assert found.image and found.model and not found.problems


def test_an_image_without_a_server(host: Host) -> None:
    host.answer = (255, "", "FATAL: no such thing")
    (problem,) = host.look().problems
    assert f"{host.image} has no llama-server" in problem.text
    assert "server_path" in problem.remedy
    assert "apptainer says: FATAL: no such thing" in problem.text
    last = host.record(server_path="/my/server")
    assert host.look(server_path="/my/server").problems == ()
    assert len(host.look(last).problems) == 1


def test_the_wanted_sha256_of_an_image_on_the_host(host: Host) -> None:
    assert host.look(digest=digest(SIF)).problems == ()
    (problem,) = host.look(digest="b" * 64).problems
    assert (problem.option, problem.path) == ("image_sha256", str(host.image))
    assert problem.text == f"{host.image} has the sha256 {digest(SIF)}, and {'b' * 64} is expected"


def test_what_is_no_image(host: Host) -> None:
    host.image.write_bytes(b"<html>" + bytes(100))
    (problem,) = host.look().problems
    assert f"{host.image} is not a SIF image but an HTML page" in problem.text


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"<html>", "GGUF"), (build.model()[:-40], "bytes")],
)
def test_what_is_no_model(host: Host, content: bytes, said: str) -> None:
    host.model.write_bytes(content)
    found = host.look()
    assert found.model is None
    assert all(str(problem).startswith(f"model: {host.model}") for problem in found.problems)
    assert said in " ".join(map(str, found.problems))


def test_a_split_model(host: Host) -> None:
    parts = build.split(host.model.parent)
    host.model = parts[0]
    model = host.look().model
    assert model and [file["path"] for file in model["files"]] == [str(part) for part in parts]
    assert model["size"] == sum(part.stat().st_size for part in parts)
    whole = model["sha256"]
    assert len(whole) == 64 and host.look(with_setup(a_record(), model=ModelFacts.from_json(model))).model == model
    other = build.split(host.model.parent, filler=0x33)[2].read_bytes()
    build.split(host.model.parent)
    parts[2].write_bytes(other)
    changed = host.look(with_setup(a_record(), model=ModelFacts.from_json(model))).model
    assert changed and changed["sha256"][:12] != whole[:12]
    parts[1].unlink()
    (missing,) = host.look().missing
    assert str(missing) == f"model: {parts[1]} is not there. Fetch it with gpufleet.llamacpp.gguf_model first."
    assert missing.path == str(parts[1])
    host.model = parts[1]
    assert f"is not the first part of the model. llama-server needs {parts[0]}." in str(host.look().problems[0])


def test_a_bind_that_is_not_there(host: Host) -> None:
    options = params(image=str(host.image), model=str(host.model), binds=["/nothing/there:/x"])
    found = needed_files.find_files(spec.parse(options, "/h"), host.run, None, host.found(), host.readings.__setitem__)
    (missing,) = found.missing
    assert str(missing) == "binds: /nothing/there is not there on the host. Create it, or remove the bind."
    assert missing.path == "/nothing/there"


def test_what_is_wrong_with_the_keys_is_told(host: Host) -> None:
    host.keys.write_bytes(b"# none\n")
    (problem,) = host.look(api_key_file=str(host.keys)).problems
    assert "has no key" in str(problem)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no key"),
        (b"\n\n", "has no key"),
        (b"# only\n#comments\n", "has no key"),
        (b"  \t\n", "has no key"),
        (b"key\r\n", "carriage return"),
        (b"key \n", "a space"),
        (b" key\n", "a space"),
        (b"good\nbad \n", "a space"),
        (b"\xff\xfe", "cannot be read"),
        (b"key", None),
        (b"key\n", None),
        (b"# mine\nkey\n\nother\n", None),
    ],
)
def test_key_files(tmp_path: Path, content: bytes, said: str | None) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(content)
    found = needed_files.check_keys(str(keys))
    assert len(found) == (0 if said is None else 1)
    assert all(str(said) in str(problem) and problem.path == str(keys) for problem in found)


def test_a_key_file_that_is_a_folder(tmp_path: Path) -> None:
    (problem,) = needed_files.check_keys(str(tmp_path))
    assert "cannot be read" in str(problem)
