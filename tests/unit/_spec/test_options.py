# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of options, and the places where Ansible wants an option written again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import options
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.spec import Spec
from ansible_collections.gpufleet.llamacpp.plugins.modules import llamacpp_instance
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_spec, params

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTED: dict[str, dict[str, Any]] = yaml.safe_load(llamacpp_instance.DOCUMENTATION)["options"]
# What the role decides for the instance, or takes apart.
IN_OTHER_WORDS = {"model"}


def test_names_flags_and_places_are_unique() -> None:
    words = [word for option in options.OPTIONS for word in (*option.flags, option.variable) if word]
    places = [option.place for option in options.ARGUMENTS]
    assert len(options.BY_NAME) == len(options.OPTIONS)
    assert len(set(words)) == len(words)
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_the_documentation_agrees(option: options.Option) -> None:
    documented = DOCUMENTED[option.name]
    assert documented["type"] == option.type
    assert documented.get("default") == option.default
    assert tuple(documented.get("choices") or ()) == option.choices
    assert documented.get("elements", "") == option.elements
    assert documented.get("required", False) == option.required
    assert set(documented.get("suboptions") or ()) == set(option.suboptions or ())


def test_nothing_else_is_documented() -> None:
    assert list(DOCUMENTED) == [name for name in DOCUMENTED if name in options.BY_NAME]


def test_the_role_hands_every_option_over() -> None:
    tasks = yaml.safe_load((ROOT / "roles/llamacpp/tasks/instances.yml").read_text())
    module = "gpufleet.llamacpp.llamacpp_instance"
    (handed,) = (task[module] for task in tasks if module in task)
    assert set(handed) == set(options.BY_NAME)
    for name in set(options.DECLARED) - {"name", *IN_OTHER_WORDS}:
        assert re.match(r"\{\{ llamacpp_item\." + name + r" \| default\(", handed[name]), handed[name]


def test_a_recorded_option_is_a_field_of_the_spec_or_plain() -> None:
    fields = set(Spec.__dataclass_fields__) - {"plain"}
    assert fields == {option.name for option in options.RECORDED if not option.plain}


def test_the_sample_has_every_option() -> None:
    assert set(params()) == set(options.BY_NAME)


@pytest.mark.parametrize("option", options.PLAIN, ids=lambda option: option.name)
def test_a_plain_option_is_recorded_and_reaches_the_command_line(option: options.Option) -> None:
    value = 3 if option.type == "int" else "3"
    assert a_spec(**{option.name: value}).as_dict()[option.name] == value
    argv = a_launch(**{option.name: value}).argv
    assert argv[argv.index(option.flags[0]) + 1] == "3"
    assert option.flags[0] not in a_launch(**{option.name: None}).argv
