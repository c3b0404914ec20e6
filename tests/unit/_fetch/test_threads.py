# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The threads of a fetch do not reuse a private name of threading.Thread, on any Python of a host."""

from __future__ import annotations

import inspect
import threading

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.hasher import Hasher
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.syncer import Syncer
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.worker import Worker

# What this Python has, and what later ones add: _handle and _os_thread_handle (3.13), _context (3.14).
PRIVATE = {*vars(threading.current_thread()), "_handle", "_os_thread_handle", "_context"}


@pytest.mark.parametrize("thread", [Hasher, Syncer, Worker])
def test_no_private_name_is_reused(thread: type[threading.Thread]) -> None:
    functions = filter(inspect.isfunction, vars(thread).values())
    names = {name for function in functions for name in function.__code__.co_names}
    assert names & PRIVATE == set()
