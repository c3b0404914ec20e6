# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.file_record import FileRecord
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.observe import SeenModel
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.plan import ModelPlan, plan
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.seen import SeenGguf
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.staging import FolderSpace
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.model.sample import spec_of

PATH = "/models/m.gguf"
URL = "https://h/m.gguf"
SRC = "/share/m.gguf"
A, B = "a" * 64, "b" * 64
SPACE = FolderSpace("/models", True, 1 << 40, 1000, None)


def record(sha256=A, **source):
    return FileRecord(100, 1, 1, 1, sha256, source, 10**10)


ABSENT = SeenGguf(PATH)
KNOWN = SeenGguf(PATH, True, True, size=100, record=record(), trusted=True, sha256=A)
READ_NOW = SeenGguf(PATH, True, True, size=100, sha256=A, read_since_ns=5)
UNREAD = SeenGguf(PATH, True, True, size=100)
BROKEN = SeenGguf(PATH, True, True, size=50, problems=(Problem("", "It is cut short", "Get it again."),))
HOLED = SeenGguf(PATH, True, True, size=100, holes=(Problem("", "It has holes"),), sha256=A, read_since_ns=5)
FOLDER = SeenGguf(PATH, True, problems=(Problem("", "It is a folder"),))
CUT = Problem("", "The source is cut", "Get it again.")
SOURCE = SeenGguf(SRC, True, True, size=100, sha256=A)


def decide(seen, source=None, space=SPACE, leftovers=(), **options):
    return plan(spec_of(PATH, **options), SeenModel((seen,), (source,), (), space, leftovers))


# The spec


def test_a_single_file():
    spec = spec_of(PATH, url=URL, sha256=[A.upper()])
    (file,) = spec.files
    assert (file.path, spec.source.shown(0), file.sha256) == (PATH, URL, A)


def test_any_part_of_a_split_model_means_all():
    spec = spec_of("/m/x-00002-of-00002.gguf", url="https://h/q/x-00001-of-00002.gguf", sha256=[A, B])
    assert spec.problems == ()
    assert [(file.path, spec.source.shown(index), file.sha256) for index, file in enumerate(spec.files)] == [
        ("/m/x-00001-of-00002.gguf", "https://h/q/x-00001-of-00002.gguf", A),
        ("/m/x-00002-of-00002.gguf", "https://h/q/x-00002-of-00002.gguf", B),
    ]


@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        ({"path": "models/m.gguf"}, "path", "'models/m.gguf' is not the absolute path of a file"),
        ({"path": "/models/"}, "path", "is not the absolute path"),
        ({"path": "/models/../m.gguf"}, "path", "is not the absolute path"),
        ({"path": "/m/x-00009-of-00002.gguf"}, "path", "is named as part 9 of 2, expected is 1 to 2"),
        ({"url": "ftp://h/m.gguf"}, "url", "'ftp://h/m.gguf' is not an http or https address"),
        ({"url": "https:///m.gguf"}, "url", "is not an http or https address"),
        ({"src": "m.gguf"}, "src", "'m.gguf' is not an absolute path"),
        ({"src": SRC, "url": URL}, "src", "url and src are given"),
        ({"sha256": ["abc"]}, "sha256", "'abc' has 3 characters"),
        ({"sha256": ["g" * 64]}, "sha256", "has 64 characters"),
        ({"sha256": [A, B]}, "sha256", "has 2 digest(s), and the model has 1 file(s)"),
        (
            {"url": "https://h/x-00001-of-00002.gguf"},
            "url",
            "path names 1 file(s), and https://h/x-00001-of-00002.gguf",
        ),
        ({"path": "/m/x-00001-of-00002.gguf", "src": SRC}, "src", "path names 2 file(s)"),
        ({"connections": -5}, "connections", "-5 is out of range"),
        ({"connections": 0}, "connections", "0 is out of range"),
        ({"connections": 65}, "connections", "65 is out of range"),
    ],
)
def test_wrong_options_are_problems_of_their_option(options, option, words):
    spec = spec_of(**{"path": PATH, **options})
    (problem,) = spec.problems
    assert problem.option == option
    assert words in problem.text
    seen = SeenModel(tuple(SeenGguf(file.path) for file in spec.files), (None,) * len(spec.files), (), SPACE)
    assert problem in plan(spec, seen).refusals


def test_problems_show_no_secrets():
    spec = spec_of(PATH, url="ftp://user:hidden@h/x-00001-of-00002.gguf?token=hidden")
    assert len(spec.problems) == 2
    assert "hidden" not in str(spec.problems)
    spec = spec_of(PATH, url="https://user:hidden@h/x-00003-of-00002.gguf?token=hidden")
    assert spec.problems[0].text.startswith("https://h/x-00003-of-00002.gguf is named as part 3 of 2")
    assert "hidden" not in str(spec.problems)


def test_all_problems_are_reported_at_once():
    space = replace(SPACE, problem=Problem("", "It is read-only"))
    refusals = decide(ABSENT, SeenGguf(SRC), space, src=SRC, sha256=["abc"]).refusals
    assert [problem.option for problem in refusals] == ["sha256", "src", "path"]
    assert "'abc' has 3 characters" in refusals[0].text
    assert refusals[1].text == "/share/m.gguf is not there"
    assert refusals[2].text == "It is read-only"


# Present


@pytest.mark.parametrize(
    ("seen", "options"),
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
def test_nothing_to_do(seen, options):
    assert decide(seen, **options) == ModelPlan()


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
    assert decide(seen, source, sha256=[A], src=SRC) == ModelPlan(record=(0,))


@pytest.mark.parametrize(
    ("seen", "source", "options", "why"),
    [
        (ABSENT, None, {"url": URL}, "/models/m.gguf is not there"),
        (ABSENT, SOURCE, {"src": SRC}, "/models/m.gguf is not there"),
        (BROKEN, None, {"url": URL}, "It is cut short"),
        (HOLED, None, {"url": URL}, "It has holes"),
        (HOLED, None, {"url": URL, "sha256": [B]}, "It has holes"),
        (KNOWN, None, {"url": URL, "sha256": [B]}, f"has the sha256 {A}, and {B} is expected"),
        (
            replace(KNOWN, record=record(url="https://h/old.gguf")),
            None,
            {"url": URL},
            "came from https://h/old.gguf, and https://h/m.gguf is expected",
        ),
        (replace(KNOWN, record=record(src="/old")), None, {"url": URL}, "came from /old"),
        (replace(READ_NOW, record=record(B, url=URL)), None, {"url": URL}, "no longer what came from"),
        (KNOWN, replace(SOURCE, sha256=B), {"src": SRC}, f"has another content ({B})"),
        (KNOWN, replace(SOURCE, size=7, sha256=None), {"src": SRC}, "/share/m.gguf has 7 bytes"),
    ],
)
def test_to_be_brought_with_the_reason(seen, source, options, why):
    steps = decide(seen, source, **options)
    assert steps.refusals == ()
    assert steps.bring == (0,)
    (action,) = steps.actions
    assert why in action.why
    assert action.what == (f"Fetch {URL} to {PATH}" if "url" in options else f"Copy {SRC} to {PATH}")


def test_a_missing_folder_is_an_action_of_its_own():
    steps = decide(ABSENT, space=replace(SPACE, exists=False), url=URL)
    assert [action.what for action in steps.actions] == ["Create the folder /models", f"Fetch {URL} to {PATH}"]


def test_addresses_are_shown_without_secrets():
    steps = decide(ABSENT, url="https://user:hidden@h/m.gguf?token=hidden")
    assert steps.actions[0].what == f"Fetch {URL} to {PATH}"


@pytest.mark.parametrize(
    ("seen", "source", "space", "options", "words"),
    [
        (ABSENT, None, SPACE, {}, "path: /models/m.gguf is not there. No repo, url or src says where to get it from."),
        (BROKEN, None, SPACE, {}, "It is cut short. No repo, url or src"),
        (KNOWN, None, SPACE, {"sha256": [B]}, "is expected. No repo, url or src"),
        (KNOWN, None, SPACE, {"sha256": [B], "src": PATH}, "is expected. No repo, url or src"),
        (FOLDER, None, SPACE, {"url": URL}, "path: It is a folder."),
        (ABSENT, SeenGguf(SRC), SPACE, {"src": SRC}, "src: /share/m.gguf is not there. Name a GGUF file on the host."),
        (ABSENT, replace(SOURCE, problems=(CUT,)), SPACE, {"src": SRC}, "src: The source is cut. Get it again."),
        (ABSENT, replace(SOURCE, holes=(CUT,)), SPACE, {"src": SRC}, "src: The source is cut. Get it again."),
        (ABSENT, SOURCE, SPACE, {"src": SRC, "sha256": [B]}, f"/share/m.gguf has the sha256 {A}, and {B} is expected"),
        (ABSENT, SOURCE, replace(SPACE, free_bytes=100), {"src": SRC}, "has 100 bytes free, and 101 are needed"),
        (ABSENT, None, replace(SPACE, free_files=2), {"url": URL}, "has 2 inodes free, and 4 are needed"),
        (ABSENT, None, replace(SPACE, problem=Problem("", "It is read-only")), {"url": URL}, "path: It is read-only."),
    ],
)
def test_refused_before_anything_is_touched(seen, source, space, options, words):
    steps = decide(seen, source, space, **options)
    (refusal,) = steps.refusals
    assert words in str(refusal)
    assert (steps.actions, steps.bring, steps.record, steps.remove) == ((), (), (), ())


def test_holes_in_a_source_are_excused_by_its_sha256():
    source = replace(SOURCE, holes=(CUT,))
    assert decide(ABSENT, source, src=SRC, sha256=[A]).bring == (0,)


def test_a_file_system_without_fixed_inodes_never_lacks_them():
    assert decide(ABSENT, space=replace(SPACE, free_files=None), url=URL).bring == (0,)


# Sets

SET = [f"/models/x-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
OTHER_PART = Problem("", "Part 2 is of another model")
SET_URL = "https://h/x-00001-of-00003.gguf"


def decide_set(kinds, set_problems=(), **options):
    files = tuple(replace(kind, path=path) for kind, path in zip(kinds, SET))
    return plan(spec_of(SET[0], **options), SeenModel(files, (None,) * 3, tuple(set_problems), SPACE))


def test_only_the_missing_parts_are_brought():
    steps = decide_set([KNOWN, ABSENT, READ_NOW], url=SET_URL)
    assert (steps.bring, steps.record) == ((1,), (2,))
    assert [action.what for action in steps.actions] == [f"Fetch https://h/x-00002-of-00003.gguf to {SET[1]}"]


def test_parts_that_do_not_belong_together_are_all_brought_again():
    steps = decide_set([KNOWN] * 3, [OTHER_PART], url=SET_URL)
    assert steps.bring == (0, 1, 2)
    assert {action.why for action in steps.actions} == {"Part 2 is of another model"}


def test_parts_that_do_not_belong_together_without_a_source():
    assert "No repo, url or src" in decide_set([KNOWN] * 3, [OTHER_PART]).refusals[0].remedy


# Absent


def test_absent_is_absent():
    assert decide(ABSENT, state="absent") == ModelPlan()


def test_what_is_there_is_removed_whatever_it_is():
    for seen in (KNOWN, BROKEN, UNREAD):
        steps = decide(seen, state="absent", url=URL, sha256=["ignored"])
        assert steps.remove == (0,)
        assert [(action.what, action.why) for action in steps.actions] == [
            (f"Remove {PATH}", "the desired state is absent")
        ]


def test_leftovers_of_interrupted_runs_are_removed_too():
    steps = decide(ABSENT, leftovers=("/models/.gguf_model/incoming/x",), state="absent")
    assert [action.what for action in steps.actions] == ["Remove /models/.gguf_model/incoming/x"]


def test_removal_is_refused_where_it_cannot_be():
    space = replace(SPACE, problem=Problem("", "No"))
    assert decide(KNOWN, space=space, state="absent").refusals == (Problem("path", "No"),)
    assert decide(FOLDER, state="absent").refusals == (Problem("path", "It is a folder"),)
    assert decide(ABSENT, space=space, state="absent") == ModelPlan()
