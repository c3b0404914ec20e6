# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a fault the server is back without help, once, and nothing of the old one is left."""

import pytest


@pytest.fixture(autouse=True)
def whole_afterwards(instance):
    """The arguments are the same as before, and there is one runner and one container."""
    before = instance.command(instance.pid())
    yield
    assert instance.command(instance.pid()) == before
    assert instance.script("status").rc == 0
    assert len([line for line in instance.leftovers().splitlines() if "runner.py" in line]) == 1
    assert len([line for line in instance.leftovers().splitlines() if "squashfuse" in line]) == 1


@pytest.mark.parametrize("victim", ["server_pid", "container_pid", "runner_pid"])
def test_kill_9(instance, host, victim):
    pid = instance.pid()

    host.check_output(f"kill -9 {instance.account()[victim]}")

    instance.back(pid)


def test_reboot(instance, lab):
    pid, boot = instance.pid(), instance.account()["boot"]

    lab("reboot", "gpu1")

    instance.back(pid)
    assert instance.account()["boot"] != boot
