# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of faults share: the change that they make, and the state that they expect afterwards."""

from types import SimpleNamespace

import pytest

# Deploys only the instance, without the host's preparation and without models.
ONLY = ("--tags", "llamacpp_instances")
# A change that needs a restart.
CHANGE = {"context_size": 4096}
GPUS = "/etc/fakenvml.state"


@pytest.fixture(scope="session")
def begin(begin):
    """Begin a deploy with the quickest gate. A test about the gate asks for another one."""
    return lambda *words, **settings: begin(*words, **{"gate": "health", **settings})


@pytest.fixture(scope="session")
def change(deploy):
    """Deploy the instance with a smaller context and the settings of a test."""
    return lambda **settings: deploy(*ONLY, **{**CHANGE, **settings})


@pytest.fixture(scope="session")
def ask(instance, direct, site):
    """Make the same change by the module alone, for tests that read only its result."""

    def run(**settings):
        options = {**instance.record()["spec"], "home": site.home, **CHANGE, **settings}
        answer = direct.run("llamacpp_instance", **{key: value for key, value in options.items() if value is not None})
        return SimpleNamespace(failed=int(bool(answer.get("failed"))), output=answer["msg"])

    return run


@pytest.fixture
def untouched(instance):
    """The same process serves before and after, and no file has changed."""
    pid, before = instance.pid(), instance.snapshot()
    yield
    assert instance.pid() == pid
    assert instance.health() == 200
    assert instance.snapshot() == before


@pytest.fixture
def gpus(host):
    """Set the state of the host's GPUs. They are fakes: this tests the management of GPUs and not CUDA."""

    def write(*lines):
        host.check_output("printf '%%s\\n' %s > %s.new && mv %s.new %s", "\n".join(("auto rss", *lines)), *[GPUS] * 3)

    yield write
    host.check_output("rm -f %s", GPUS)
