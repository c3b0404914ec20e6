# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A changed spec: foretold, carried out with one restart, and undone where it does not work."""

import re

import pytest

REASON = "context_size: 8192 -> 4096"
ONLY = ("--tags", "llamacpp_instances")


@pytest.fixture(scope="module", autouse=True)
def as_declared_afterwards(deploy):
    yield
    assert deploy().failed == 0


def test_check_and_diff_name_the_reason_and_touch_nothing(instance, deploy):
    pid, before = instance.pid(), instance.snapshot()

    foretold = deploy("--check", "--diff", *ONLY, context_size=4096)

    assert (foretold.changed, foretold.failed) == (1, 0), foretold.output
    assert REASON in foretold.output
    assert re.search(r'^-\s+"8192",\n\+\s+"4096",$', foretold.output, re.MULTILINE)
    assert instance.pid() == pid
    assert instance.snapshot() == before


def test_one_restart_for_the_reason_foretold(instance, deploy):
    pid, starts = instance.pid(), instance.starts()

    done = deploy("-v", *ONLY, context_size=4096)

    assert (done.changed, done.failed) == (1, 0), done.output
    assert REASON in done.output
    assert instance.starts() == starts + 1
    assert instance.pid() != pid
    command = instance.command(instance.pid())
    assert command[command.index("-c") + 1] == "4096"


def test_what_fails_at_load_is_undone_and_explained(instance, deploy):
    """The option is one that the parser takes and that the load does not survive."""
    before = instance.command(instance.pid())

    failed = deploy(*ONLY, args=["--jinja", "--mmproj /models/nowhere.gguf"])

    assert failed.failed == 1, failed.output
    assert "nowhere.gguf" in failed.output
    assert "Back on the release of" in failed.output
    assert "Traceback" not in failed.output
    assert instance.command(instance.pid()) == before
    assert instance.health() == 200
