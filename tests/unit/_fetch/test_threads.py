# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The threads of a fetch use no attribute that belongs to Python's own Thread in any version."""

from __future__ import annotations

import inspect
import re
import threading

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.hasher import Hasher
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.syncer import Syncer
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.worker import Worker

NEWER = {"_handle", "_os_thread_handle", "_context"}  # of Python 3.13 and 3.14


@pytest.mark.parametrize("kind", [Hasher, Syncer, Worker])
def test_attributes(kind: type[threading.Thread]) -> None:
    assigned = set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(kind)))
    assert assigned
    assert assigned & {*vars(threading.current_thread()), *NEWER} == set()
