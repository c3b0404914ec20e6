# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the faults share: a change that is wanted, and the instance as it has to be afterwards."""

from types import SimpleNamespace

import pytest

# Without models and host: only the instance is brought to its state.
ONLY = ("--tags", "llamacpp_instances")
# A change that needs a restart.
CHANGE = {"context_size": 4096}
GPUS = "/etc/fakenvml.state"


@pytest.fixture(scope="session")
def begin(begin):
    """As everywhere, with the quickest gate: what it proves is the subject of a few tests, and they say so."""
    return lambda *words, **settings: begin(*words, **{"gate": "health", **settings})


@pytest.fixture(scope="session")
def change(deploy):
    """Deploy the instance with a smaller context, and what a test wants differently."""
    return lambda **settings: deploy(*ONLY, **{**CHANGE, **settings})


@pytest.fixture(scope="session")
def ask(instance, module, site):
    """The same change by the module alone, where nothing but its answer is looked at."""

    def run(**settings):
        options = {**instance.record()["spec"], "home": site.home, **CHANGE, **settings}
        answer = module("llamacpp_instance", **{key: value for key, value in options.items() if value is not None})
        return SimpleNamespace(failed=int(bool(answer.get("failed"))), output=answer.get("msg", ""))

    return run


@pytest.fixture
def untouched(instance):
    """The same process serves before and after, and no file is another one."""
    pid, before = instance.pid(), instance.snapshot()
    yield
    assert instance.pid() == pid
    assert instance.health() == 200
    assert instance.snapshot() == before


@pytest.fixture
def gpus(host):
    """Say what the host's GPUs are. They are a fake: what is seen is the management path, not CUDA."""

    def write(*lines):
        host.check_output("printf '%%s\\n' %s > %s.new && mv %s.new %s", "\n".join(("auto rss", *lines)), *[GPUS] * 3)

    yield write
    host.check_output("rm -f %s", GPUS)
