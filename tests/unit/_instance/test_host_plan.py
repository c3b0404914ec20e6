# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The look at a whole host: what needs a task of its own, what may come right by itself, and every problem at once.

What a single instance and a single model need is decided elsewhere, and stood in for here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.image.resolve import Image
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import host_plan
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.request import Answer, Request
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight.gpus import Neighbour
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Problem, Refusal
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import store
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_record


def entry(name: str, model: str = "/m/x.gguf", **options: Any) -> dict[str, Any]:
    return {"name": name, "port": 4403, "image": "x.sif", "model": {"path": model}, **options}


def answer(changed: bool = False, **more: Any) -> Answer:
    return Answer({"changed": changed}, **more)


class Host:
    """What is answered for each instance by its name, and for each model by its path."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.instances: dict[str, Answer | Exception] = {}
        self.models: dict[str, SimpleNamespace] = {}
        self.asked: list[str] = []
        self.before: dict[str, tuple[Neighbour, ...]] = {}

    def reconcile(self, request: Request) -> Answer:
        assert request.check
        self.asked.append(request.name)
        self.before[request.name] = request.before
        found = self.instances.get(request.name, answer())
        if isinstance(found, Exception):
            raise found
        return found

    def decide(self, params: Mapping[str, Any], *dummy: Any, preview: bool) -> SimpleNamespace:
        assert params["verify"] == "never" and not preview, "a model is not read to find out what there is to do"
        self.asked.append(params["path"])
        return self.models.get(params["path"], a_model())

    def look(self, *declared: Mapping[str, Any], strict: bool = True) -> host_plan.HostPlan:
        ways = host_plan.HostTools(
            str(self.home), lambda argv, environ=None: (0, "", ""), lambda name: True, lambda text: None
        )
        return host_plan.look(declared, ways, {}, strict)


def a_model(
    *actions: str, refusals: tuple[Problem, ...] = (), trusted: bool = True, record: tuple[int, ...] = ()
) -> Any:
    return SimpleNamespace(
        plan=SimpleNamespace(actions=actions, refusals=refusals, record=record),
        spec=SimpleNamespace(warnings=()),
        seen=SimpleNamespace(files=[SimpleNamespace(trusted=trusted)]),
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(host_plan, "reconcile", host.reconcile)
    monkeypatch.setattr(host_plan, "decide", host.decide)
    return host


def names(entries: list[Any]) -> list[str]:
    return [one["name"] for one in entries]


def test_nothing_to_do(host: Host) -> None:
    found = host.look(entry("a"), entry("b"))
    assert found.plan == {"models": [], "images": [], "instances": [], "undeclared": [], "memory": []}
    assert (found.problems, found.warnings) == ([], [])
    assert host.asked == ["/m/x.gguf", "a", "b"], "a model that two share is looked at once"


@pytest.mark.parametrize(
    "what",
    [
        answer(True),
        answer(touched=True),
    ],
)
def test_what_is_changed_or_recorded_is_to_do(host: Host, what: Answer) -> None:
    host.instances["b"] = what
    assert names(host.look(entry("a"), entry("b"), entry("c")).plan["instances"]) == ["b"]


@pytest.mark.parametrize("model", [a_model("Fetch"), a_model(record=(0,)), a_model(trusted=False)])
def test_a_model_with_something_to_do(host: Host, model: Any) -> None:
    host.models["/m/y.gguf"] = model
    wanted = {"path": "/m/y.gguf", "url": "http://u/y.gguf"}
    found = host.look(entry("a"), {**entry("b"), "model": wanted}, {**entry("c"), "model": wanted})
    assert found.plan["models"] == [wanted]


def test_a_model_that_is_read_again_each_time(host: Host) -> None:
    wanted = {"path": "/m/x.gguf", "verify": "always"}
    assert host.look({**entry("a"), "model": wanted}).plan["models"] == [wanted]


def test_no_model_for_a_server_at_rest(host: Host) -> None:
    found = host.look(entry("a", state="stopped"), entry("b", state="absent"))
    assert host.asked == ["a", "b"] and found.plan["models"] == []


def test_an_instance_waits_for_a_model_that_is_there_and_not_known(host: Host, tmp_path: Path) -> None:
    model = tmp_path / "x.gguf"
    model.touch()
    host.models[str(model)] = a_model(trusted=False)
    found = host.look(entry("a", str(model)))
    assert host.asked == [str(model)], "the instance would read the model whole"
    assert names(found.plan["instances"]) == ["a"]


def test_an_image_that_two_share_comes_once_to_where_they_expect_it(host: Host) -> None:
    image = Image("/h/shared/x-1.sif", sha256="1" * 64)
    host.instances["a"] = host.instances["b"] = answer(True, image=image)
    options = {"image": "oras://r/x:1", "image_no_https": True, "pull": "always"}
    assert host.look(entry("a", **options), entry("b", **options)).plan["images"] == [
        {"path": image.path, "src": "oras://r/x:1", "sha256": "1" * 64, "pull": "always", "no_https": True}
    ]


@pytest.mark.parametrize(
    ("missing", "comes"),
    [
        (Problem("model", "it is not there", path="/m/y.gguf"), True),
        (Problem("model", "two are not there", path="/m/y-00002-of-00003.gguf"), True),
        (Problem("binds", "it is not there", path="/m"), True),
        (Problem("binds", "it is not there", path="/m/"), True),
        (Problem("model", "it is not there", path="/n/y.gguf"), False),
        (Problem("binds", "it is not there", path="/n"), False),
        (Problem("image", "it is not there", path="/m/x.sif"), False),
        (Problem("user", "it is not there"), False),
    ],
)
def test_what_is_missing_and_does_not_come(host: Host, missing: Problem, comes: bool) -> None:
    host.models["/m/y.gguf"] = a_model("Fetch")
    host.instances["a"] = answer(warnings=[str(missing), "and more"], missing=[missing])
    found = host.look(entry("a", "/m/y.gguf"))
    assert list(map(str, found.problems)) == ([] if comes else [f"a: {missing}"])
    assert found.warnings == ["a: and more"]
    assert names(found.plan["instances"]) == ["a"]
    assert host.look(entry("a", "/m/y.gguf"), strict=False).problems == [], "in check mode another task may bring it"


def test_every_problem_of_all_at_once(host: Host) -> None:
    host.models["/m/x.gguf"] = a_model(refusals=(Problem("", "the disk is full"),))
    host.instances["a"] = Refusal([Problem("port", "4403 is in use"), Problem("args", "no such option")])
    host.instances["c"] = OSError(5, "I/O error")
    found = host.look(entry("a"), entry("b", prot=1), entry("c"))
    assert [str(problem) for problem in found.problems] == [
        "/m/x.gguf: the disk is full.",
        "a: port: 4403 is in use.",
        "a: args: no such option.",
        "b: prot. Supported parameters include: " + ", ".join(sorted(host_plan.INSTANCE)) + ".",
        "c: [Errno 5] I/O error.",
    ]


PORT = Problem("port", "4403 belongs to the instance a of this host", may_pass=True)
TAKEN = Problem("port", "4403 is in use by pid 7")
GPU = Problem("gpus", "GPU 0 accepts one process and is used by the instance a", may_pass=True)
LOST = Problem("gpus", "GPU 0 is lost")
MEMORY = Problem("memory", "it does not fit on GPU 2", may_pass=True)
LITTLE = Problem("memory", "it does not fit on GPU 2")
ARGS = Problem("args", "no such option")


@pytest.mark.parametrize(
    ("problem", "passes"), [(PORT, True), (TAKEN, False), (GPU, False), (MEMORY, False), (ARGS, False)]
)
def test_what_another_instance_gives_up_first_is_no_problem_yet(host: Host, problem: Problem, passes: bool) -> None:
    host.instances["b"] = Refusal([problem])
    blocked = [replace(problem, subject="b")]
    assert host.look(entry("a"), entry("b")).problems == blocked, "a stays as it is"
    host.instances["a"] = answer(True)
    found = host.look(entry("a"), entry("b"))
    assert found.problems == ([] if passes else [replace(problem, subject="b")])
    assert names(found.plan["instances"]) == (["a", "b"] if passes else ["a"])


@pytest.mark.parametrize(
    ("problem", "passes"),
    [(PORT, True), (TAKEN, False), (GPU, True), (LOST, False), (MEMORY, True), (LITTLE, False), (ARGS, False)],
)
def test_nor_is_what_cannot_be_known_before_its_image_is_there(host: Host, problem: Problem, passes: bool) -> None:
    host.instances["a"] = answer(True, image=Image("/h/shared/x-1.sif", sha256="1" * 64))
    host.instances["b"] = Refusal([problem])
    found = host.look(entry("a", image="oras://r/x:1"), entry("b"))
    assert found.problems == ([] if passes else [replace(problem, subject="b")])


def test_each_is_looked_at_with_those_before_it_in_mind(host: Host) -> None:
    first, second = Neighbour("a", ("GPU-1",), comes=True), Neighbour("c", ("GPU-2",), comes=True)
    rows = [{"gpu": 1, "need": 7}]
    host.instances["a"] = Answer({"changed": True, "memory": rows}, takes=first)
    host.instances["c"] = answer(True, takes=second)
    found = host.look(entry("a"), entry("b"), entry("c"))
    assert host.before == {"a": (), "b": (first,), "c": (first,)}
    assert found.plan["memory"] == [{"instance": "a", "gpu": 1, "need": 7}]


def test_what_is_not_declared(host: Host) -> None:
    for name in ("old", "a"):
        (host.home / name).mkdir()
        store.write(str(host.home / name), a_record(name=name))
    assert host.look(entry("a")).plan["undeclared"] == ["old"]


@pytest.fixture
def call(run_module: Callable[..., dict[str, Any]], host: Host) -> Callable[..., dict[str, Any]]:
    from ansible_collections.gpufleet.llamacpp.plugins.modules import llamacpp_plan

    return lambda *declared: run_module(llamacpp_plan, {"instances": list(declared), "home": str(host.home)})


def test_the_module(host: Host, call: Callable[..., dict[str, Any]]) -> None:
    host.instances["a"] = answer(True)
    result = call(entry("a"), entry("b"))
    assert (result["changed"], names(result["instances"]), result["undeclared"]) == (False, ["a"], [])
    host.instances["b"] = Refusal([Problem("args", "one"), Problem("args", "two")])
    assert call(entry("a"), entry("b"))["msg"] == (
        "2 problems, nothing was changed:\n  1. b: args: one.\n  2. b: args: two."
    )
