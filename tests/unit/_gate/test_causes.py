# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the causes say about files and options is what the collection writes and takes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import causes
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.causes.cause import COMMAND, Cause
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import run_sh
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.options import INSTANCE
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import a_launch, a_spec

EVERY = [*causes.CAUSES, *causes.STATUSES.values(), causes.OOM, causes.XID]
MODULES = {"gguf_model", "gpu_info"}
# Names that look like options of the module and belong to others.
FOREIGN = {
    "user.max_user_namespaces",
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
}


def script() -> list[str]:
    """The lines of a run.sh."""
    commands = {name: ["true"] for name in ("prepare", "start", "stop", "pid", "logs")}
    text = run_sh.render(a_spec(), a_launch(), "supervisor", commands, start_timeout=1, user_bus=False).decode()
    return text.splitlines()


def command_is_in_the_comment_at_the_top() -> bool:
    lines = script()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    comment = " ".join(line.lstrip("# ") for line in lines[:end])
    return " ".join(a_launch().argv) in comment


# A claim about run.sh as it stands in a cause, and whether it is true.
CLAIMS: dict[str, Callable[[], bool]] = {COMMAND: command_is_in_the_comment_at_the_top}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_about_run_sh_is_true(claim: str) -> None:
    assert CLAIMS[claim]()


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.name)
def test_a_cause_says_of_run_sh_only_what_is_checked(cause: Cause) -> None:
    text = f"{cause.text} {cause.remedy}"
    for claim in CLAIMS:
        text = text.replace(claim, "")
    assert "run.sh" not in text


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.name)
def test_an_option_in_a_remedy_exists(cause: Cause) -> None:
    named = set(re.findall(r"(?<![\w.{-])[a-z]+(?:[_.][a-z0-9]+)*_[a-z0-9_]+", cause.remedy))
    assert named - FOREIGN <= INSTANCE.keys() | MODULES
