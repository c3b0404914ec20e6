# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: addresses, the plan, and what an image says about itself. Nothing here touches a disk or a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.file_record import Identity
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image import inspect as image_inspect
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.plan import (
    Observed,
    Remote,
    SeenImage,
    asks,
    plan,
    want,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.sources import origin_of
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.staging import Room
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import HELP, FakeRuntime

PATH = "/srv/x.sif"
A, B = "a" * 64, "b" * 64
M1, M2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
ORAS = "oras://r.example.com/gpu/llamacpp:v1"
DOCKER = "docker://r.example.com/gpu/llamacpp:v1"
HTTP = "https://h.example.com/x.sif"
ROOM = Room("/srv", True, 10**9, 1000, None)
ABSENT = SeenImage(PATH)


def seen(sha256: str | None = A, recorded: str = A, **source: Any) -> SeenImage:
    record = Identity(9, 1, 1, 1, recorded, source) if source else None
    return SeenImage(PATH, kind="file", size=9, sha256=sha256, record=record, trusted=sha256 == recorded)


def decide(observed: SeenImage, remote: Remote | None = None, more: dict[str, Any] | None = None, **wish: Any) -> Any:
    """The one reason to bring the image; None where there is nothing to do; or all refusals as a list."""
    steps = plan(
        want(PATH, **wish), Observed(observed, ROOM, remote=remote, runtime="/usr/bin/apptainer", **more or {})
    )
    if steps.refusals:
        return list(steps.refusals)
    assert steps.bring == bool(steps.actions)
    return steps.actions[-1].why if steps.actions else None


# Addresses


@pytest.mark.parametrize(
    ("address", "shown", "kind", "moves"),
    [
        ("/share/x.sif", "/share/x.sif", "file", True),
        ("https://u:secret@h/x.sif?token=1", "https://h/x.sif", "http", True),
        ("HTTP://h/x.sif", "http://h/x.sif", "http", True),
        ("oras://localhost:5000/a/b", "oras://localhost:5000/a/b:latest", "oras", True),
        (f"oras://r.io/a:v1@{M1}", f"oras://r.io/a@{M1}", "oras", False),
        ("docker://alpine", "docker://docker.io/library/alpine:latest", "docker", True),
        (f"docker://alpine@{M1}", f"docker://docker.io/library/alpine@{M1}", "docker", False),
        ("docker://me/app:1", "docker://docker.io/me/app:1", "docker", True),
        ("docker://ghcr.io/a/b__c.d-e:server-cuda", "docker://ghcr.io/a/b__c.d-e:server-cuda", "docker", True),
        ("library://a/b/c:v1", "library://a/b/c:v1", "library", True),
        (f"library://a/b/c:sha256.{A}", f"library://a/b/c:sha256.{A}", "library", False),
    ],
)
def test_addresses(address: str, shown: str, kind: str, moves: bool) -> None:
    found = origin_of(address)
    assert (found.shown, found.kind, found.may_move) == (shown, kind, moves)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("x.sif", "must be an absolute path on the host or an address"),
        ("ftp://h/x.sif", "must be a path or begin with http://"),
        ("https:///x.sif", "must be an http or https address"),
        ("https://[/x", "must be an http or https address"),
        ("oras://name:tag", "with the registry's host, and it has none"),
        ("oras://r.io/Name:v1", "'Name' is no name"),
        ("oras://r.io/name:v 1", "'v 1' is no tag"),
        ("oras://r.io/name@sha256:12", "what follows the @ is no digest"),
        ("docker://u:secret@r.io/name", "what follows the @ is no digest"),
        ("docker://r .io/name", "'r .io' is no host"),
        ("library://a b", "must be library://entity"),
    ],
)
def test_addresses_that_are_none(address: str, words: str) -> None:
    with pytest.raises(ValueError, match="^src must be") as refused:
        origin_of(address)
    assert words in str(refused.value)


def test_a_wish_with_everything_wrong() -> None:
    found = want("srv/", src="ftp://x", sha256="12").problems
    assert [problem.split()[0] for problem in found] == ["path", "src", "sha256"]
    (problem,) = want(PATH, src=DOCKER, sha256=A).problems
    assert "cannot be given with docker://" in problem
    (problem,) = want(PATH, src="library://a/b/c:v1", pull="always").problems
    assert "a library does not tell" in problem
    assert want(PATH, src="library://a/b/c:v1", pull="always", sha256=A.upper()).problems == ()


# Whom to ask


@pytest.mark.parametrize(
    ("observed", "wish", "expected"),
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
        (replace(ABSENT, kind="other", problem="x"), {"src": ORAS}, False),
    ],
)
def test_who_is_asked(observed: SeenImage, wish: dict[str, Any], expected: bool) -> None:
    assert asks(want(PATH, **wish), observed) is expected


# The plan


def test_an_image_that_is_as_wanted_stays() -> None:
    assert decide(seen(url=ORAS, digest=M1), src=ORAS) is None
    assert decide(seen(url=ORAS, digest=M1), Remote(M1), src=ORAS, pull="always") is None
    assert decide(seen(url=ORAS, digest=M1), src=f"{ORAS}@{M1}") is None
    assert decide(seen(url=DOCKER, digest=M1), Remote(M1), src=DOCKER, pull="always") is None
    assert decide(seen(url=HTTP, validator='"1"'), Remote(validator='"1"'), src=HTTP, pull="always") is None
    assert decide(seen(url=HTTP), src=ORAS, sha256=A) is None
    assert decide(seen(), src=HTTP) is None
    assert decide(seen()) is None
    # Put there by hand, and the very file that the tag means.
    assert decide(seen(), Remote(M1, A, 9), src=ORAS, pull="always") is None
    assert decide(seen(url=HTTP), Remote(M1, A, 9), src=ORAS) is None


@pytest.mark.parametrize(
    ("observed", "remote", "wish", "words"),
    [
        (ABSENT, Remote(M1, A, 9), {"src": ORAS}, f"{PATH} is not there"),
        (replace(seen(), problem="it is an HTML page"), None, {"src": HTTP}, "it is an HTML page"),
        (seen(), None, {"src": HTTP, "sha256": B}, f"{PATH} has the sha256 {A}, and {B} is wanted"),
        (
            seen(url=ORAS, digest=M1),
            Remote(M2, B, 9),
            {"src": ORAS},
            f"v1 is {M2} now, with the sha256 {B}, and {PATH}",
        ),
        (seen(url=DOCKER, digest=M1), Remote(M2), {"src": DOCKER}, f"v1 is {M2} now, and {PATH} is {M1}"),
        (seen(), Remote(M1), {"src": f"{DOCKER}@{M1}"}, f"is not known to be {M1}"),
        (seen(url=ORAS, digest=M1), Remote(M1), {"src": DOCKER}, f"is not known to be {M1}"),
        (seen(url=HTTP), None, {"src": "https://other/x.sif"}, f"came from {HTTP}, and https://other/x.sif is wanted"),
        (seen(recorded=B, url=HTTP), None, {"src": HTTP}, f"is no longer what came from {HTTP}: its sha256 was {B}"),
        (seen(url=HTTP, validator='"1"'), Remote(validator='"2"'), {"src": HTTP}, 'has changed ("1" became "2")'),
    ],
)
def test_when_it_is_brought(observed: SeenImage, remote: Remote | None, wish: dict[str, Any], words: str) -> None:
    assert words in decide(observed, remote, **wish)
    refused = decide(observed, remote, **wish, pull="never")
    assert words in refused[0]
    assert "pull is never" in refused[0]


def test_nothing_says_where_from() -> None:
    assert decide(ABSENT) == [f"{PATH} is not there. No src says where to get it from."]


def test_a_source_on_the_host() -> None:
    def source(**more: Any) -> dict[str, Any]:
        return {"source": SeenImage("/share/x.sif", **{"kind": "file", "size": 9, "sha256": A, **more})}

    wish = {"src": "/share/x.sif"}
    assert decide(seen(), None, source(), **wish) is None
    assert "has another content" in decide(seen(), None, source(sha256=B), **wish)
    assert "has 10 bytes" in decide(seen(), None, source(size=10), **wish)
    assert "src must be a SIF file" in decide(ABSENT, None, source(kind="absent"), **wish)[0]
    assert decide(ABSENT, None, source(problem="no SIF"), **wish) == ["no SIF"]
    assert "Check both" in decide(ABSENT, None, source(), **wish, sha256=B)[0]


def test_room_is_asked_for_first() -> None:
    assert "bytes free" in decide(ABSENT, Remote(M1, A, 10**9), src=ORAS)[0]
    assert decide(ABSENT, Remote(M1, A, 10**9 * 9 // 10), src=ORAS) == f"{PATH} is not there"
    # Apptainer has three copies on the disk.
    assert "bytes free" in decide(ABSENT, Remote(M1, size=10**9 * 4 // 10), src=DOCKER)[0]


def test_what_only_apptainer_can_do() -> None:
    wanted = want(PATH, src=DOCKER, public_key="/key.pem")
    refusals = plan(wanted, Observed(ABSENT, ROOM)).refusals
    assert [one.split(",")[0] for one in refusals] == [
        f"{PATH} is not there. Only Apptainer can pull from docker://",
        "public_key: /key.pem is not there on the host",
        "A signature is verified by Apptainer",
    ]


def test_a_signature_that_is_wrong_forbids() -> None:
    more = {"key": A, "signature": "it is not signed"}
    assert decide(seen(), None, more, public_key="/k") == ["it is not signed"]
    assert decide(seen(url=HTTP), None, more, public_key="/k", src=HTTP, sha256=B) is not None


def test_a_tag_that_means_another_file_than_the_sha256() -> None:
    (refusal,) = decide(ABSENT, Remote(M1, A, 9), src=ORAS, sha256=B)
    assert A in refusal
    assert B in refusal


def test_a_record_is_made_where_it_has_news() -> None:
    wanted = want(PATH, src=ORAS, pull="always")
    known = seen(url=ORAS, digest=M1)
    assert not plan(wanted, Observed(known, ROOM, remote=Remote(M1))).record
    steps = plan(wanted, Observed(seen(), ROOM, remote=Remote(M1, A, 9)))
    assert (steps.record, steps.source) == (True, {"url": ORAS, "digest": M1})
    assert plan(wanted, Observed(replace(known, trusted=False), ROOM, remote=Remote(M1))).record
    signed = plan(want(PATH, src=ORAS, public_key="/k"), Observed(known, ROOM, runtime="/a", key=A))
    assert signed.record


def test_removal() -> None:
    steps = plan(want(PATH, "absent"), Observed(seen(), ROOM, leftovers=("/srv/left",)))
    assert [action.what for action in steps.actions] == [f"Remove {PATH}", "Remove /srv/left"]
    assert plan(want(PATH, "absent"), Observed(ABSENT, ROOM)).actions == ()
    refused = plan(want(PATH, "absent"), Observed(seen(), replace(ROOM, problem="read-only")))
    assert refused.refusals == ("read-only",)


# What an image says


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
    facts, (warning,), _ = image_inspect.learn(run, "/usr/bin/apptainer", "/staged", PATH)
    assert sum(value is not None for value in facts.values()) == known
    assert f"The image {PATH} " in warning
    assert words in warning
