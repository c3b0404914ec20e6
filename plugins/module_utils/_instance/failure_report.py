# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a launch that failed: a folder for each failure, and not too many of them.

Private to gpufleet.llamacpp; may change at any time. It is taken before the way back, which overwrites most of it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

from .._gate import evidence
from .._host import layout, runner
from .._host.files import write_atomic
from .._host.gpu import read as gpu
from . import observe
from .observe import Place

KEPT = 5
LOG_LINES = 2000


def keep(place: Place, value: Mapping[str, Any], why: str) -> str:
    """Keep the evidence of this failure; returns where it is, in a sentence. Raises nothing."""
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{value['launch']['id']}"
    shelf = os.path.join(place.folder, layout.FAILURES)
    folder = os.path.join(shelf, name)
    try:
        os.makedirs(folder, mode=0o750, exist_ok=True)
        for file, content in collect(place, value, why).items():
            write_atomic(os.path.join(folder, file), content, 0o640)
        for old in sorted(os.listdir(shelf))[:-KEPT]:
            shutil.rmtree(os.path.join(shelf, old))
    except OSError as error:
        return f"The evidence could not be kept in {folder}: {error.strerror}."
    return f"The evidence is in {folder}."


def collect(place: Place, value: Mapping[str, Any], why: str) -> dict[str, bytes]:
    """Content by file name: the failure in words, what was started, the runner's account, the log, what the server
    answers, and the GPUs.
    """
    launch = value["launch"]
    lines = place.manager.log_lines(observe.unit(place, value["spec"]), LOG_LINES)
    key, account = runner.read_key(launch["api_key_file"]), observe.account(place)
    found = evidence.collect(launch["url"], key, lines, launch["argv"], account, _gpus())
    return {"failure.txt": f"{why}\n".encode(), **found}


def _gpus() -> Any:
    try:
        return gpu.as_dict(gpu.read())
    except gpu.NvmlUnavailable as error:
        return str(error)
