# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is inside, asked of the image itself: labels, llama-server, its build, its options.

Private to gpufleet.llamacpp; may change at any time.

This is asked once for each content and kept in its record.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ..._host import runtime
from ..._host.runtime import Run

# Stands in a record beside what was learned: what another reader learned is learned again. Raise it when this changes.
READER = 1
KEYS = ("labels", "server_path", "build", "options_digest")
# llama-server prints an option's names in the first 40 columns, or on a line of their own (llama.cpp common/arg.cpp).
HELP_COLUMNS = 40
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
VERSION = re.compile(r"^version: *(.+?) *$", re.MULTILINE)
NVIDIA = "/dev/nvidiactl"


def learned(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a record holds of it; None where it has to be asked."""
    if details.get("reader") != READER:
        return None
    return {key: details.get(key) for key in KEYS}


def learn(run: Run, program: str, path: str, shown: str) -> tuple[dict[str, Any], list[str]]:
    """Ask the image at ``path``; what is None could not be learned, and the second part says why, about ``shown``."""
    facts: dict[str, Any] = dict.fromkeys(KEYS)
    code, out, err = run([program, "inspect", "--json", path])
    facts["labels"] = _labels(out) if code == 0 else None
    if facts["labels"] is None:
        return facts, [_warning(program, shown, "cannot be inspected", err)]
    server, said = runtime.find_server(run, program, path)
    if server is None:
        places = ", ".join(runtime.SERVER_PATHS)
        return facts, [_warning(program, shown, f"has no llama-server on its PATH, nor at {places}", said)]
    facts["server_path"] = server
    # A server that was built for CUDA does not start, not even for this, without the driver's library.
    gpu = ["--nv"] if os.path.exists(NVIDIA) else []
    begin = [program, "exec", *runtime.ISOLATION, *gpu, path, server]
    code, out, err = run([*begin, "--version"])
    found = VERSION.search(err) or VERSION.search(out)
    facts["build"] = found.group(1) if code == 0 and found else None
    if facts["build"] is None:
        return facts, [_warning(program, shown, f"has {server}, which does not tell its version", err)]
    code, out, err = run([*begin, "--help"])
    names = option_names(out)
    facts["options_digest"] = options_digest(names) if code == 0 and names else None
    if facts["options_digest"] is None:
        return facts, [_warning(program, shown, f"has {server}, which does not list its options", err)]
    return facts, []


def option_names(text: str) -> list[str]:
    """The names of all options in what ``llama-server --help`` prints, sorted."""
    names: set[str] = set()
    for line in text.splitlines():
        if line.startswith("-") and not line.startswith("---"):
            has_description = line[HELP_COLUMNS - 2 : HELP_COLUMNS] == "  "
            names |= set(OPTION.findall(line[:HELP_COLUMNS] if has_description else line))
    return sorted(names)


def options_digest(names: list[str]) -> str:
    """One number for a list of options: the sha256 of the sorted names, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def _labels(text: str) -> dict[str, str] | None:
    try:
        labels = json.loads(text)["data"]["attributes"].get("labels") or {}
        return {str(name): str(value) for name, value in sorted(labels.items())}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _warning(program: str, shown: str, what: str, err: str) -> str:
    said = [line for line in err.strip().splitlines() if not line.startswith("INFO:")]
    tail = f" {os.path.basename(program)} said: {' '.join(said)[-400:]}" if said else ""
    return f"The image {shown} {what}.{tail}"
