# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server is expected to be, and what of its own answers differs from that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import expectation, identity, sampling, slots
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.client import NotProven
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.expectation import Expectation
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.options import Gate
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama import argv
from ansible_collections.gpufleet.llamacpp.tests.unit._gate.fake_server import (
    ARGUMENTS,
    MODEL,
    MODELS,
    PROPS,
    changed,
    idle,
)

EXPECTED = Expectation(model=MODEL, arguments=ARGUMENTS, build="11669")


def record(**more: Any) -> dict[str, Any]:
    return {
        "spec": {"image": "/home/x.sif", "gpus": ["0"]},
        "launch": {"argv": ["apptainer", "exec", "--bind", "/m:/models", "/home/x.sif", "llama-server", *ARGUMENTS]},
        "image": {"build": "11669"},
        "model": MODEL,
        "release": None,
        **more,
    }


def test_of_a_record() -> None:
    assert expectation.of_record(record(), Gate("health")) == replace(EXPECTED, gpus=True, gate=Gate("health"))


def test_of_a_record_with_a_release() -> None:
    release = {"proven": "2026", "completion": {"tokens_per_second": 20.5}}
    found = expectation.of_record(record(release=release), Gate())
    assert (found.last_rate, found.last_proven) == (20.5, "2026")
    assert expectation.of_record(record(release={"proven": "2026", "completion": None}), Gate()).last_rate is None


def test_of_a_record_that_knows_little() -> None:
    found = expectation.of_record(record(image=None, model=None, spec={"image": "/other.sif"}), Gate())
    assert found == Expectation(gate=Gate())


def test_the_patience_grows_with_the_model() -> None:
    assert EXPECTED.patience == 300
    assert Expectation().patience == 300
    assert replace(EXPECTED, model={"size": 193_000_000_000}).patience > 2900


def test_arguments() -> None:
    given = ["-c", "1", "--top_p", "0.5", "--jinja", "--ctx-size", "2", "--no-kv-unified", "-kvu"]
    assert argv.value_of(given, "-c", "--ctx-size") == "2"
    assert argv.value_of(given, "--top-p") == "0.5"
    assert argv.value_of(given, "--min-p") is None
    assert argv.value_of(["-c"], "-c") is None
    assert argv.flag(given, ("-kvu",), ("--no-kv-unified",)) is True
    assert argv.flag(given[:-1], ("-kvu",), ("--no-kv-unified",)) is False
    assert argv.flag([], ("-kvu",)) is None
    assert [argv.number(text) for text in ("4", "-1", "4x", None)] == [4, -1, None, None]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("size", 1, "its tensor_bytes is 1, that of /data/models/a.gguf is 96576768"),
        ("n_params", 2, "its parameters is 2, that of /data/models/a.gguf is 134515008"),
    ],
)
def test_another_model(key: str, value: int, said: str) -> None:
    (problem,) = identity.problems(EXPECTED, PROPS, changed(MODELS, "data", 0, "meta", key, to=value))
    assert said in problem


def test_the_same_model() -> None:
    assert identity.problems(EXPECTED, PROPS, MODELS) == []


def test_a_model_of_which_nothing_is_known_is_not_compared() -> None:
    unknown = Expectation(model={"path": "/x", "tensor_bytes": None})
    assert identity.problems(unknown, PROPS, changed(MODELS, "data", 0, "meta", "size", to=1)) == []


@pytest.mark.parametrize(
    ("wanted", "found", "differs"),
    [
        ("11669", "b11669-Debian", False),
        ("11668", "b11669-Debian", True),
        ("b11669", "b11669-7e4c0a9", False),
        ("0.7.0 (build 11669, commit Debian)", "b11669-Debian", False),
        ("1.10.200 (build 11669, commit 7e4c0a9)", "b11669-7e4c0a9", False),
        ("0.7.0 (build 11668, commit Debian)", "b11669-Debian", True),
        ("10434 (7e4c0a9)", "b10434-7e4c0a9", False),
        (None, "b11669-Debian", False),
        ("11669", None, False),
        ("11669", "0-unknown", False),
    ],
)
def test_the_build(wanted: str | None, found: str | None, differs: bool) -> None:
    problems = identity.problems(replace(EXPECTED, build=wanted), {**PROPS, "build_info": found}, MODELS)
    assert bool(problems) is differs
    assert all(f"build {found}, the image holds build {wanted}" in problem for problem in problems)


def test_another_path() -> None:
    (problem,) = identity.problems(EXPECTED, {**PROPS, "model_path": "/models/b.gguf"}, MODELS)
    assert problem.startswith("/props says that the model is /models/b.gguf, it was started with /models/a.gguf.")


@pytest.mark.parametrize(
    ("alias", "lacks"), [("zeta,alpha", ""), ("alpha", ""), ("beta", "beta"), ("alpha,beta", "beta")]
)
def test_the_alias(alias: str, lacks: str) -> None:
    """llama-server sorts the aliases, and takes the first one for the name."""
    models = changed(MODELS, "data", 0, "aliases", to=["alpha", "zeta"])
    problems = identity.problems(
        replace(EXPECTED, arguments=(*ARGUMENTS, "--alias", alias)), PROPS, changed(models, "data", 0, "id", to="alpha")
    )
    assert [f"know the model as {lacks!r}" in problem for problem in problems] == ([True] if lacks else [])


def test_sampling_as_it_was_started() -> None:
    assert sampling.problems(ARGUMENTS, PROPS) == []
    assert set(sampling.expected(ARGUMENTS)) == {"temperature", "top_p", "min_p", "repeat_penalty"}


@pytest.mark.parametrize(
    ("key", "found", "said"),
    [
        ("temperature", 0.8, "temperature 0.8, started with --temp 1."),
        ("top_p", 0.9501, "top_p 0.9501, started with --top-p 0.95."),
        ("min_p", 0.05, "min_p 0.05, started with --min-p 0.01."),
        ("repeat_penalty", 1.1, "repeat_penalty 1.1, started with --repeat-penalty 1."),
    ],
)
def test_sampling_that_differs(key: str, found: float, said: str) -> None:
    props = changed(PROPS, "default_generation_settings", "params", key, to=found)
    (problem,) = sampling.problems(ARGUMENTS, props)
    assert f"the server samples with {said}" in problem


@pytest.mark.parametrize(
    ("given", "key", "found"),
    [
        (("--temp", "-1"), "temperature", 0.0),
        (("--seed", "-1"), "seed", 4294967295),
        (("-s", "42"), "seed", 42),
        (("--top-k", "1", "--top_k", "7"), "top_k", 7),
        (("--top-k", "7x"), "top_k", 40),
        (("--typical-p", "0.7"), "typical_p", 0.699999988079071),
    ],
)
def test_how_sampling_is_read(given: tuple[str, ...], key: str, found: float) -> None:
    props = changed(PROPS, "default_generation_settings", "params", key, to=found)
    assert sampling.problems(given, props) == []


def test_a_key_that_a_build_does_not_show_is_not_compared() -> None:
    assert sampling.problems(("--adaptive-target", "0.5"), PROPS) == []


@pytest.mark.parametrize(
    "props",
    [{}, {"default_generation_settings": {}}, changed(PROPS, "default_generation_settings", "params", "top_p", to="x")],
    ids=["empty", "no params", "text"],
)
def test_sampling_of_another_shape(props: Any) -> None:
    with pytest.raises(NotProven, match="^/props has not the shape"):
        sampling.problems(ARGUMENTS, props)


# Read back from servers of build 11669 that were started so, with a model that was trained with 8192 tokens.
@pytest.mark.parametrize(
    ("given", "context"),
    [
        (("-c", "65536"), 8192),
        (("-c", "5000", "-np", "3"), 1792),
        (("-c", "4096"), 4096),
        (("-c", "4096", "-np", "4"), 1024),
        (("-c", "4096", "-np", "4", "-kvu"), 4096),
        (("-c", "0"), 8192),
        ((), 8192),
        (("--ctx-size", "4096", "--no-kv-unified"), 4096),
    ],
    ids=str,
)
def test_the_context_of_a_slot(given: tuple[str, ...], context: int) -> None:
    props = changed(PROPS, "default_generation_settings", "n_ctx", to=context)
    props["total_slots"] = int(argv.value_of(given, "-np") or 4)
    assert slots.problems(replace(EXPECTED, arguments=given), props) == []


def test_an_old_build_does_not_hold_the_context_to_the_trained_length() -> None:
    assert slots.context_range(("-c", "65536"), 8192) == (8192, 65536 + slots.PAD)


def test_too_little_context_and_too_few_slots() -> None:
    props = changed({**PROPS, "total_slots": 1}, "default_generation_settings", "n_ctx", to=2048)
    problems = slots.problems(replace(EXPECTED, arguments=("-c", "8192", "--parallel", "2")), props)
    assert problems[0].startswith("the server has 1 slots, started with --parallel 2.")
    assert problems[1].startswith("a slot holds 2048 tokens, expected are 4096.")


class Look:
    """What /slots says at each look: the last stays; the time that passes is the test's own."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.now, self.looks = list(answers), 0.0, 0

    def __call__(self) -> Any:
        self.looks += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def settle(self) -> int:
        slots.settled(self, lambda: self.now, self.sleep)
        return self.looks


def busy(number: int, task: int, decoded: int) -> dict[str, Any]:
    return {"id": number, "is_processing": True, "id_task": task, "next_token": [{"n_decoded": decoded}]}


def test_slots_at_rest() -> None:
    assert Look([idle(0), idle(1)]).settle() == 1
    assert Look([]).settle() == 1


def test_slots_that_move_or_come_to_rest() -> None:
    assert Look([busy(0, 1, 5)], [idle(0)]).settle() == 2
    assert Look([busy(0, 1, 5)], [busy(0, 1, 6)]).settle() == 2
    assert Look([busy(0, 1, 5)], [busy(0, 2, 5)]).settle() == 2
    assert Look([busy(0, 1, 5), busy(1, 2, 5)], [busy(0, 1, 6), busy(1, 2, 5)], [busy(1, 2, 6)]).settle() == 3


def test_a_slot_that_stands_still() -> None:
    look = Look([busy(0, 1, 5), busy(3, 2, 5)], [busy(0, 1, 6), busy(3, 2, 5)])
    with pytest.raises(NotProven, match="^slot 3 of /slots works for 60 s and does not move"):
        look.settle()
    assert look.now == pytest.approx(slots.STILL, abs=1)


def test_a_slot_of_an_older_build_has_one_next_token() -> None:
    one = {"id": 0, "is_processing": True, "id_task": 1, "next_token": {"n_decoded": 5}}
    assert slots.standing([one]) == {0: (1, None, 5)}
    assert slots.standing([{**one, "next_token": None}]) == {0: (1, None, None)}


@pytest.mark.parametrize("value", [{}, 7, None, [7]], ids=str)
def test_slots_of_another_shape(value: Any) -> None:
    with pytest.raises(NotProven, match="^/slots has not the shape"):
        slots.standing(value)
