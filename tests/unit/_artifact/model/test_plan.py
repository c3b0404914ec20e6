# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.file_record import Identity
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.plan import (
    Observed,
    Plan,
    SeenFile,
    plan,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.spec import want
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.staging import Room

PATH = "/models/m.gguf"
URL = "https://h/m.gguf"
SRC = "/share/m.gguf"
A, B = "a" * 64, "b" * 64
ROOM = Room("/models", True, 1 << 40, 1000, None)


def record(sha256=A, **source):
    return Identity(100, 1, 1, 1, sha256, source, 10**10)


ABSENT = SeenFile(PATH)
KNOWN = SeenFile(PATH, kind="file", size=100, record=record(), trusted=True, sha256=A)
READ_NOW = SeenFile(PATH, kind="file", size=100, sha256=A, read_since_ns=5)
UNREAD = SeenFile(PATH, kind="file", size=100)
BROKEN = SeenFile(PATH, kind="file", size=50, problems=("It is cut short.",))
HOLED = SeenFile(PATH, kind="file", size=100, holes=("It has holes.",), sha256=A, read_since_ns=5)
FOLDER = SeenFile(PATH, kind="other", problems=("It is a folder.",))
SOURCE = SeenFile(SRC, kind="file", size=100, sha256=A)


def decide(seen, source=None, room=ROOM, leftovers=(), **wish):
    return plan(want(PATH, **wish), Observed((seen,), (source,), (), room, leftovers))


# The wish


def test_a_single_file():
    (file,) = want(PATH, url=URL, sha256=[A.upper()]).files
    assert (file.path, file.url, file.src, file.sha256) == (PATH, URL, None, A)


def test_any_part_of_a_split_model_means_all():
    wanted = want("/m/x-00002-of-00002.gguf", url="https://h/q/x-00001-of-00002.gguf", sha256=[A, B])
    assert wanted.problems == ()
    assert [(file.path, file.url, file.sha256) for file in wanted.files] == [
        ("/m/x-00001-of-00002.gguf", "https://h/q/x-00001-of-00002.gguf", A),
        ("/m/x-00002-of-00002.gguf", "https://h/q/x-00002-of-00002.gguf", B),
    ]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"path": "models/m.gguf"}, "path must be the absolute path"),
        ({"path": "/models/"}, "path must be the absolute path"),
        ({"path": "/models/../m.gguf"}, "without '..'"),
        ({"path": "/m/x-00009-of-00002.gguf"}, "parts are counted from 1 to 2"),
        ({"url": "ftp://h/m.gguf"}, "url must be an http or https address"),
        ({"url": "https:///m.gguf"}, "url must be an http or https address"),
        ({"src": "m.gguf"}, "src must be an absolute path"),
        ({"src": SRC, "url": URL}, "both given"),
        ({"sha256": ["abc"]}, "must have 64 hexadecimal digits, and it is 'abc' (3 characters)"),
        ({"sha256": ["g" * 64]}, "must have 64 hexadecimal digits"),
        ({"sha256": [A, B]}, "has 2 digest(s), and the model has 1 file(s)"),
        ({"url": "https://h/x-00001-of-00002.gguf"}, "path names 1 file(s), /models/m.gguf, and the source 2"),
        ({"path": "/m/x-00001-of-00002.gguf", "src": SRC}, "path names 2 file(s)"),
    ],
)
def test_a_wrong_wish_is_refused_in_words(wish, words):
    wanted = want(**{"path": PATH, **wish})
    assert len(wanted.problems) == 1
    assert words in wanted.problems[0]
    assert wanted.problems[0] in plan(wanted, Observed((ABSENT,), (None,), (), ROOM)).refusals


def test_a_wrong_wish_shows_no_secrets():
    wanted = want(PATH, url="ftp://user:hidden@h/x-00001-of-00002.gguf?token=hidden")
    assert len(wanted.problems) == 2
    assert "hidden" not in str(wanted.problems)


def test_all_problems_are_told_at_once():
    room = replace(ROOM, problem="It is read-only.")
    refusals = decide(ABSENT, SeenFile(SRC), room, src=SRC, sha256=["abc"]).refusals
    assert len(refusals) == 3
    assert "64 hexadecimal" in refusals[0]
    assert "/share/m.gguf is not there" in refusals[1]
    assert refusals[2] == "It is read-only."


# Present


@pytest.mark.parametrize(
    ("seen", "wish"),
    [
        (KNOWN, {}),
        (KNOWN, {"sha256": [A]}),
        (KNOWN, {"sha256": [A], "url": URL}),
        (KNOWN, {"url": URL}),  # of unknown origin, and whole
        (replace(KNOWN, record=record(url=URL)), {"url": URL}),
        (replace(KNOWN, record=record(url=URL)), {"url": URL + "?signature=new"}),
        (KNOWN, {"src": SRC}),
        (UNREAD, {"sha256": [A], "verify": "never"}),
    ],
)
def test_nothing_to_do(seen, wish):
    assert decide(seen, **wish) == Plan()


@pytest.mark.parametrize(
    ("seen", "source"),
    [
        (READ_NOW, None),
        (replace(READ_NOW, record=record(), trusted=True), None),  # verify: always
        (replace(KNOWN, trusted=False), None),
        (KNOWN, SOURCE),  # the source was read to compare; its new stat is worth keeping
        (HOLED, None),  # these zeros are proven to belong there
    ],
)
def test_only_to_be_recorded(seen, source):
    assert decide(seen, source, sha256=[A], src=SRC) == Plan(record=(0,))


@pytest.mark.parametrize(
    ("seen", "source", "wish", "why"),
    [
        (ABSENT, None, {"url": URL}, "/models/m.gguf is not there"),
        (ABSENT, SOURCE, {"src": SRC}, "/models/m.gguf is not there"),
        (BROKEN, None, {"url": URL}, "It is cut short."),
        (HOLED, None, {"url": URL}, "It has holes."),
        (HOLED, None, {"url": URL, "sha256": [B]}, "It has holes."),
        (KNOWN, None, {"url": URL, "sha256": [B]}, f"has the sha256 {A}, and {B} is wanted"),
        (
            replace(KNOWN, record=record(url="https://h/old.gguf")),
            None,
            {"url": URL},
            "came from https://h/old.gguf, and https://h/m.gguf is wanted",
        ),
        (replace(KNOWN, record=record(src="/old")), None, {"url": URL}, "came from /old"),
        (replace(READ_NOW, record=record(B, url=URL)), None, {"url": URL}, "no longer what came from"),
        (KNOWN, replace(SOURCE, sha256=B), {"src": SRC}, f"has another content ({B})"),
        (KNOWN, replace(SOURCE, size=7, sha256=None), {"src": SRC}, "/share/m.gguf has 7 bytes"),
    ],
)
def test_to_be_brought_with_the_reason(seen, source, wish, why):
    steps = decide(seen, source, **wish)
    assert steps.refusals == ()
    assert steps.bring == (0,)
    (action,) = steps.actions
    assert why in action.why
    assert action.what == (f"Fetch {URL} to {PATH}" if "url" in wish else f"Copy {SRC} to {PATH}")


def test_a_missing_folder_is_an_action_of_its_own():
    steps = decide(ABSENT, room=replace(ROOM, exists=False), url=URL)
    assert [action.what for action in steps.actions] == ["Create the folder /models", f"Fetch {URL} to {PATH}"]


def test_addresses_are_shown_without_secrets():
    steps = decide(ABSENT, url="https://user:hidden@h/m.gguf?token=hidden")
    assert steps.actions[0].what == f"Fetch {URL} to {PATH}"


@pytest.mark.parametrize(
    ("seen", "source", "room", "wish", "words"),
    [
        (ABSENT, None, ROOM, {}, "is not there. No repo, url or src says where to get it from."),
        (BROKEN, None, ROOM, {}, "It is cut short. No repo, url or src"),
        (KNOWN, None, ROOM, {"sha256": [B]}, "is wanted. No repo, url or src"),
        (KNOWN, None, ROOM, {"sha256": [B], "src": PATH}, "is wanted. No repo, url or src"),
        (FOLDER, None, ROOM, {"url": URL}, "It is a folder."),
        (ABSENT, SeenFile(SRC), ROOM, {"src": SRC}, "/share/m.gguf is not there; src must be"),
        (ABSENT, replace(SOURCE, problems=("The source is cut short.",)), ROOM, {"src": SRC}, "The source is cut"),
        (ABSENT, replace(SOURCE, holes=("The source has holes.",)), ROOM, {"src": SRC}, "The source has holes."),
        (ABSENT, SOURCE, ROOM, {"src": SRC, "sha256": [B]}, f"/share/m.gguf has the sha256 {A}, and {B} is wanted"),
        (ABSENT, SOURCE, replace(ROOM, free_bytes=100), {"src": SRC}, "has 100 bytes free, and 101 are needed"),
        (ABSENT, None, replace(ROOM, free_files=2), {"url": URL}, "has 2 inodes free, and 4 are needed"),
        (ABSENT, None, replace(ROOM, problem="It is read-only."), {"url": URL}, "It is read-only."),
    ],
)
def test_refused_before_anything_is_touched(seen, source, room, wish, words):
    steps = decide(seen, source, room, **wish)
    assert len(steps.refusals) == 1
    assert words in steps.refusals[0]
    assert (steps.actions, steps.bring, steps.record, steps.remove) == ((), (), (), ())


def test_holes_in_a_source_are_excused_by_its_sha256():
    source = replace(SOURCE, holes=("The source has holes.",))
    assert decide(ABSENT, source, src=SRC, sha256=[A]).bring == (0,)


def test_a_file_system_without_fixed_inodes_never_lacks_them():
    assert decide(ABSENT, room=replace(ROOM, free_files=None), url=URL).bring == (0,)


# Sets

SET = [f"/models/x-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
SET_URL = "https://h/x-00001-of-00003.gguf"


def decide_set(kinds, set_problems=(), **wish):
    files = tuple(replace(kind, path=path) for kind, path in zip(kinds, SET))
    return plan(want(SET[0], **wish), Observed(files, (None,) * 3, tuple(set_problems), ROOM))


def test_only_the_missing_parts_are_brought():
    steps = decide_set([KNOWN, ABSENT, READ_NOW], url=SET_URL)
    assert (steps.bring, steps.record) == ((1,), (2,))
    assert [action.what for action in steps.actions] == [f"Fetch https://h/x-00002-of-00003.gguf to {SET[1]}"]


def test_parts_that_do_not_belong_together_are_all_brought_again():
    steps = decide_set([KNOWN] * 3, ["Part 2 is of another model."], url=SET_URL)
    assert steps.bring == (0, 1, 2)
    assert {action.why for action in steps.actions} == {"Part 2 is of another model."}


def test_parts_that_do_not_belong_together_without_a_source():
    assert "No repo, url or src" in decide_set([KNOWN] * 3, ["Part 2 is of another model."]).refusals[0]


# Absent


def test_absent_is_absent():
    assert decide(ABSENT, state="absent") == Plan()


def test_what_is_there_is_removed_whatever_it_is():
    for seen in (KNOWN, BROKEN, UNREAD):
        steps = decide(seen, state="absent", url=URL, sha256=["ignored"])
        assert steps.remove == (0,)
        assert [(action.what, action.why) for action in steps.actions] == [
            (f"Remove {PATH}", "the wanted state is absent")
        ]


def test_leftovers_of_interrupted_runs_are_removed_too():
    steps = decide(ABSENT, leftovers=("/models/.gguf_model/incoming/x",), state="absent")
    assert [action.what for action in steps.actions] == ["Remove /models/.gguf_model/incoming/x"]


def test_removal_is_refused_where_it_cannot_be():
    assert decide(KNOWN, room=replace(ROOM, problem="No."), state="absent").refusals == ("No.",)
    assert decide(FOLDER, state="absent").refusals == ("It is a folder.",)
    assert decide(ABSENT, room=replace(ROOM, problem="No."), state="absent") == Plan()
