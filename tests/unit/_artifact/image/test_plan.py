# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: addresses, the plan, and the reading of an image. Nothing here touches a disk or a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.file_record import FileRecord
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import inspect as image_inspect
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.observe import SeenImage, asks
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.options import IMAGE
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.plan import plan
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources import source_of
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources.source import PublishedImage
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.spec import ImageSpec, image_spec
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.seen_file import SeenFile
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.staging import FolderSpace
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import OperatorError, Problem
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import HELP, FakeRuntime

PATH = "/srv/x.sif"
A, B = "a" * 64, "b" * 64
M1, M2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
ORAS = "oras://r.example.com/gpu/llamacpp:v1"
DOCKER = "docker://r.example.com/gpu/llamacpp:v1"
HTTP = "https://h.example.com/x.sif"
SPACE = FolderSpace("/srv", True, 10**9, 1000, None)
ABSENT = SeenFile(PATH)


def spec_of(path: str = PATH, **options: Any) -> ImageSpec:
    assert set(options) <= set(IMAGE)
    return image_spec({**{name: option.get("default") for name, option in IMAGE.items()}, "path": path, **options})


def signed(**options: Any) -> ImageSpec:
    return spec_of(verify_signature=True, public_key="/key.pem", **options)


def seen(sha256: str | None = A, recorded: str = A, **source: Any) -> SeenFile:
    record = FileRecord(9, 1, 1, 1, recorded, source) if source else None
    return SeenFile(PATH, True, True, size=9, sha256=sha256, record=record, trusted=sha256 == recorded)


def decide(
    file: SeenFile, published: PublishedImage | None = None, more: dict[str, Any] | None = None, **options: Any
) -> Any:
    """The one reason to bring the image; None where there is nothing to do; or all refusals as a list of sentences."""
    return decide_spec(spec_of(**options), file, published, more)


def decide_spec(
    spec: ImageSpec, file: SeenFile, published: PublishedImage | None = None, more: dict[str, Any] | None = None
) -> Any:
    found = SeenImage(file, SPACE, published=published, program="/usr/bin/apptainer", **more or {})
    steps = plan(spec, found)
    if steps.refusals:
        return [str(problem) for problem in steps.refusals]
    assert steps.bring == bool(steps.actions)
    return steps.actions[-1].why if steps.actions else None


# Addresses


@pytest.mark.parametrize(
    ("address", "shown", "schemes", "pin"),
    [
        ("/share/x.sif", "/share/x.sif", (), None),
        ("https://u:secret@h/x.sif?token=1", "https://h/x.sif", ("http", "https"), None),
        ("HTTP://h/x.sif", "http://h/x.sif", ("http", "https"), None),
        ("oras://localhost:5000/a/b", "oras://localhost:5000/a/b:latest", ("oras",), None),
        (f"oras://r.io/a:v1@{M1}", f"oras://r.io/a@{M1}", ("oras",), M1),
        ("docker://alpine", "docker://docker.io/library/alpine:latest", ("docker",), None),
        (f"docker://alpine@{M1}", f"docker://docker.io/library/alpine@{M1}", ("docker",), M1),
        ("docker://me/app:1", "docker://docker.io/me/app:1", ("docker",), None),
        ("docker://ghcr.io/a/b__c.d-e:server-cuda", "docker://ghcr.io/a/b__c.d-e:server-cuda", ("docker",), None),
        ("library://a/b/c:v1", "library://a/b/c:v1", ("library",), None),
    ],
)
def test_addresses(address: str, shown: str, schemes: tuple[str, ...], pin: str | None) -> None:
    found = source_of(address, "src")
    assert (found.shown, found.schemes, found.pin) == (shown, schemes, pin)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("x.sif", "'x.sif' is neither an absolute path on the host nor an address"),
        ("ftp://h/x.sif", "ftp:// is not supported. Write a path, or begin with http://, https://, oras://"),
        ("https:///x.sif", "the https address has no host. Write https://host/path.sif."),
        ("https://[/x", "the https address has no host"),
        ("oras://name:tag", "oras://name:tag has no registry's host. Write oras://registry/name:tag"),
        ("oras://r.io/Name:v1", "'Name' is not a name"),
        ("oras://r.io/name:v 1", "'v 1' is not a tag"),
        ("oras://r.io/name@sha256:12", "the part behind the @ is not a digest"),
        ("docker://u:secret@r.io/name", "the part behind the @ is not a digest"),
        ("docker://r .io/name", "'r .io' is not a host"),
        ("library://a b", "'library://a b' is not the address of an image in a library"),
    ],
)
def test_addresses_that_are_none(address: str, words: str) -> None:
    with pytest.raises(OperatorError, match="^image: ") as refused:
        source_of(address, "image")
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_spec_with_everything_wrong() -> None:
    found = spec_of("srv/", src="ftp://x", sha256="12").problems
    assert [problem.option for problem in found] == ["path", "src", "sha256"]
    (problem,) = spec_of(src=DOCKER, sha256=A).problems
    assert (problem.option, "cannot be given with docker://" in problem.text) == ("sha256", True)
    (problem,) = spec_of(src="library://a/b/c:v1", pull="always").problems
    assert (problem.option, "a library does not report" in problem.text) == ("pull", True)
    assert spec_of(src="library://a/b/c:v1", pull="always", sha256=A.upper()).problems == ()
    assert spec_of(src=f"library://a/b/c:sha256.{A}", pull="always").problems == ()


# What has to be asked


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        (ABSENT, {"src": ORAS}, True),
        (ABSENT, {"src": HTTP}, True),
        (ABSENT, {"src": "/share/x.sif"}, False),
        (ABSENT, {"src": "library://a/b/c:v1"}, False),
        (ABSENT, {"src": ORAS, "pull": "never"}, False),
        (ABSENT, {"src": ORAS, "state": "absent"}, False),
        (ABSENT, {}, False),
        (seen(url=ORAS, digest=M1), {"src": ORAS}, False),
        (seen(url=ORAS, digest=M1), {"src": ORAS, "pull": "always"}, True),
        (seen(url=ORAS, digest=M1), {"src": ORAS, "pull": "always", "sha256": A}, False),
        (seen(url=ORAS, digest=M1), {"src": ORAS, "sha256": B}, True),
        (seen(url=ORAS, digest=M1), {"src": f"{ORAS}@{M1}", "pull": "always"}, False),
        (seen(url=ORAS, digest=M1), {"src": f"{ORAS}@{M2}"}, True),
        (seen(url=DOCKER, digest=M1), {"src": f"{ORAS}@{M1}"}, True),
        (seen(), {"src": ORAS}, False),
        (seen(), {"src": f"{ORAS}@{M1}"}, True),
        (seen(url=HTTP), {"src": ORAS}, True),
        (seen(recorded=B, url=ORAS, digest=M1), {"src": ORAS}, True),
        (seen(url=HTTP), {"src": HTTP}, False),
        (seen(url=HTTP), {"src": HTTP, "pull": "always"}, True),
        (SeenFile(PATH, True, problems=(Problem("", "x"),)), {"src": ORAS}, False),
    ],
)
def test_when_the_source_is_asked(file: SeenFile, options: dict[str, Any], expected: bool) -> None:
    spec = spec_of(**options)
    assert (spec.source is not None and asks(spec, spec.source, file)) is expected


# The plan


def test_an_image_that_is_as_wanted_stays() -> None:
    assert decide(seen(url=ORAS, digest=M1), src=ORAS) is None
    assert decide(seen(url=ORAS, digest=M1), PublishedImage(M1), src=ORAS, pull="always") is None
    assert decide(seen(url=ORAS, digest=M1), src=f"{ORAS}@{M1}") is None
    assert decide(seen(url=DOCKER, digest=M1), PublishedImage(M1), src=DOCKER, pull="always") is None
    assert decide(seen(url=HTTP, validator='"1"'), PublishedImage(validator='"1"'), src=HTTP, pull="always") is None
    assert decide(seen(url=HTTP), src=ORAS, sha256=A) is None
    assert decide(seen(), src=HTTP) is None
    assert decide(seen()) is None
    # Put there by hand, and the very file that the tag means.
    assert decide(seen(), PublishedImage(M1, A, 9), src=ORAS, pull="always") is None
    assert decide(seen(url=HTTP), PublishedImage(M1, A, 9), src=ORAS) is None


@pytest.mark.parametrize(
    ("file", "published", "options", "words"),
    [
        (ABSENT, PublishedImage(M1, A, 9), {"src": ORAS}, f"{PATH} is not there"),
        (replace(seen(), problems=(Problem("", "it is an HTML page"),)), None, {"src": HTTP}, "it is an HTML page"),
        (seen(), None, {"src": HTTP, "sha256": B}, f"{PATH} has the sha256 {A}, and {B} is expected"),
        (
            seen(url=ORAS, digest=M1),
            PublishedImage(M2, B, 9),
            {"src": ORAS},
            f"v1 is {M2} now, with the sha256 {B}, and {PATH}",
        ),
        (seen(url=DOCKER, digest=M1), PublishedImage(M2), {"src": DOCKER}, f"v1 is {M2} now, and {PATH} is {M1}"),
        (seen(), PublishedImage(M1), {"src": f"{DOCKER}@{M1}"}, f"is not known to be {M1}"),
        (seen(url=ORAS, digest=M1), PublishedImage(M1), {"src": DOCKER}, f"is not known to be {M1}"),
        (
            seen(url=HTTP),
            None,
            {"src": "https://other/x.sif"},
            f"came from {HTTP}, and https://other/x.sif is",
        ),
        (seen(recorded=B, url=HTTP), None, {"src": HTTP}, f"is no longer what came from {HTTP}: its sha256 was {B}"),
        (
            seen(url=HTTP, validator="1"),
            PublishedImage(validator="2"),
            {"src": HTTP},
            "has changed (1 became 2)",
        ),
    ],
)
def test_when_it_is_brought(
    file: SeenFile, published: PublishedImage | None, options: dict[str, Any], words: str
) -> None:
    assert words in decide(file, published, **options)
    refused = decide(file, published, **options, pull="never")
    assert words in refused[0]
    assert "pull is never" in refused[0]


def test_an_image_without_a_source() -> None:
    assert decide(ABSENT) == [f"path: {PATH} is not there. No src says where to get it from. Give one."]


def test_a_source_on_the_host() -> None:
    def source(**more: Any) -> dict[str, Any]:
        return {"source": replace(SeenFile("/share/x.sif", True, True, size=9, sha256=A), **more)}

    options = {"src": "/share/x.sif"}
    assert decide(seen(), None, source(), **options) is None
    assert "has another content" in decide(seen(), None, source(sha256=B), **options)
    assert "has 10 bytes" in decide(seen(), None, source(size=10), **options)
    assert "Name a SIF file on the host" in decide(ABSENT, None, source(exists=False), **options)[0]
    assert decide(ABSENT, None, source(problems=(Problem("", "no SIF"),)), **options) == ["src: no SIF."]
    assert "Check both" in decide(ABSENT, None, source(), **options, sha256=B)[0]


def test_the_space_is_checked_first() -> None:
    assert "bytes free" in decide(ABSENT, PublishedImage(M1, A, 10**9), src=ORAS)[0]
    assert decide(ABSENT, PublishedImage(M1, A, 10**9 * 9 // 10), src=ORAS) == f"{PATH} is not there"
    # Apptainer has three copies on the disk.
    assert "bytes free" in decide(ABSENT, PublishedImage(M1, size=10**9 * 4 // 10), src=DOCKER)[0]


def test_what_only_apptainer_can_do() -> None:
    refusals = plan(signed(src=DOCKER), SeenImage(ABSENT, SPACE)).refusals
    assert [(one.option, one.text) for one in refusals] == [
        ("path", f"{PATH} is not there"),
        ("public_key", "/key.pem is not there on the host, or cannot be read"),
        ("verify_signature", "Apptainer verifies a signature, and this host has neither apptainer nor singularity"),
    ]
    assert f"Only Apptainer can pull {DOCKER}" in refusals[0].remedy


def test_a_signature_that_is_wrong_forbids() -> None:
    more = {"key": A, "signature": Problem("public_key", "it is not signed")}
    assert decide_spec(signed(), seen(), None, more) == ["public_key: it is not signed."]
    assert decide_spec(signed(src=HTTP, sha256=B), seen(url=HTTP), None, more) is not None


def test_a_tag_that_means_another_file_than_the_sha256() -> None:
    (refusal,) = decide(ABSENT, PublishedImage(M1, A, 9), src=ORAS, sha256=B)
    assert A in refusal
    assert B in refusal


def test_a_record_is_made_where_it_has_news() -> None:
    spec = spec_of(src=ORAS, pull="always")
    known = seen(url=ORAS, digest=M1)
    same = PublishedImage(M1)
    assert not plan(spec, SeenImage(known, SPACE, published=same)).record
    steps = plan(spec, SeenImage(seen(), SPACE, published=PublishedImage(M1, A, 9)))
    assert (steps.record, steps.source) == (True, {"url": ORAS, "digest": M1})
    assert plan(spec, SeenImage(replace(known, trusted=False), SPACE, published=same)).record
    assert plan(signed(src=ORAS), SeenImage(known, SPACE, program="/a", key=A)).record


def test_removal() -> None:
    spec = spec_of(state="absent")
    steps = plan(spec, SeenImage(seen(), SPACE, leftovers=("/srv/left",)))
    assert [action.what for action in steps.actions] == [f"Remove {PATH}", "Remove /srv/left"]
    assert plan(spec, SeenImage(ABSENT, SPACE)).actions == ()
    refused = plan(spec, SeenImage(seen(), replace(SPACE, problem=Problem("", "read-only"))))
    assert refused.refusals == (Problem("path", "read-only"),)


# What is in an image


def test_what_is_learned() -> None:
    run = FakeRuntime()
    facts, warnings, reading = image_inspect.learn(run, "/usr/bin/apptainer", "/staged", PATH)
    assert warnings == []
    assert (reading.server, reading.help, reading.failure) == ("/app/llama-server", HELP.strip(), None)
    assert run.verbs == ["inspect", "/bin/sh"], "one container is started"
    assert facts == {
        "labels": {"title": "llama"},
        "server_path": "/app/llama-server",
        "build": "6123 (abcdef)",
        "options_digest": image_inspect.options_digest(
            ["--a-very-long-option-that-needs-a-line-of-its-own", "--help", "--threads", "--usage", "-h", "-t"]
        ),
    }
    assert image_inspect.learned({"reader": image_inspect.READER, **facts}) == facts
    assert image_inspect.learned({**facts, "reader": image_inspect.READER + 1}) is None
    assert image_inspect.learned({}) is None


def test_options_are_what_stands_in_their_column() -> None:
    names = image_inspect.option_names(HELP)
    assert "--threads-batch" not in names
    assert "--nothing" not in names


@pytest.mark.parametrize(
    ("word", "answer", "known", "words"),
    [
        ("inspect", (1, "", "FATAL: no SIF"), 0, "cannot be inspected. apptainer printed: FATAL: no SIF"),
        ("inspect", (0, "{}", ""), 0, "cannot be inspected"),
        ("/bin/sh", (1, "", ""), 1, "has no llama-server on its PATH"),
        ("--version", (127, "libcuda.so.1: cannot open", ""), 2, "has /app/llama-server, but --version fails."),
        ("--help", (127, "", "INFO: x\nlibcuda.so.1: not found"), 3, "options. apptainer printed: libcuda.so.1: not"),
        ("--help", (0, "", ""), 3, "has /app/llama-server, but --help lists no options."),
    ],
)
def test_what_cannot_be_learned(word: str, answer: tuple[int, str, str], known: int, words: str) -> None:
    run = FakeRuntime()
    run.answers[word] = answer
    facts, (warning,), dummy = image_inspect.learn(run, "/usr/bin/apptainer", "/staged", PATH)
    assert sum(value is not None for value in facts.values()) == known
    assert f"The image {PATH} " in warning
    assert words in warning
