# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that are kept of a failed server: its log, its command, and what it still answers. Without secrets.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .._host import layout

try:
    import requests
except ImportError:  # then the server is not asked
    requests = None  # type: ignore[assignment]

# Seconds for one reply of a server that may hang, and bytes of the reply that are kept.
ASK_TIMEOUT = 5
ASK_BYTES = 1 << 20
# File name and request.
ENDPOINTS = {
    "health.json": "/health",
    "props.json": "/props",
    "models.json": "/v1/models",
    "slots.json": "/slots",
    "metrics.txt": "/metrics",
}
# Keys of /slots with texts of the server's users: only their length is kept.
PRIVATE = ("prompt", "generated")
# Arguments followed by a secret, and NAME=value whose value is one.
SECRET_OPTIONS = ("--api-key", "--hf-token", "-hft")
SECRET_NAME = re.compile(r"(?i)^([A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)[A-Z0-9_]*)=.*", re.DOTALL)
HIDDEN = "(hidden)"


def collect(
    url: str,
    key: str | None,
    lines: Sequence[str],
    argv: Sequence[str],
    account: Mapping[str, Any],
    gpus: Any,
) -> dict[str, bytes]:
    """The files by name. No file contains a secret.

    ``account``: the runner's state file, with the exit status if there is one. ``gpus``: the host's GPUs as gpu_info
    returns them, or why they cannot be read. All endpoints are asked at once, because the server may hang; if one does
    not answer, its file says so. Raises nothing.
    """
    files = {
        layout.LOG: "\n".join(lines) + "\n",
        "argv.json": _pretty(redact(argv)),
        layout.STATE: _pretty(account),
        "gpus.json": _pretty(gpus),
    }
    with ThreadPoolExecutor(max_workers=len(ENDPOINTS)) as pool:
        replies = pool.map(lambda path: _ask(url + path, key), ENDPOINTS.values())
        files.update(zip(ENDPOINTS, replies))
    return {name: _without(key, text).encode("utf-8", "replace") for name, text in files.items()}


def redact(argv: Sequence[str]) -> list[str]:
    """The argument list with every secret hidden, fit to be shown and kept."""
    shown, hide = [], False
    for argument in argv:
        shown.append(HIDDEN if hide else SECRET_NAME.sub(rf"\1={HIDDEN}", argument))
        hide = argument.replace("_", "-") in SECRET_OPTIONS
    return shown


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"


def _without(key: str | None, text: str) -> str:
    return text.replace(key, HIDDEN) if key else text


def _ask(url: str, key: str | None) -> str:
    """The reply to a GET, or why there is none."""
    if requests is None:
        return "Not asked: the Python library requests is missing on the host.\n"
    try:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            reply = session.get(url, headers=headers, timeout=ASK_TIMEOUT, allow_redirects=False)
            text = reply.text[:ASK_BYTES]
    except requests.RequestException as error:
        return f"No reply within {ASK_TIMEOUT} s: {error}\n"
    with contextlib.suppress(ValueError):  # /metrics is not JSON
        text = _pretty(_without_user_texts(json.loads(text)))
    return text if reply.status_code == 200 else f"HTTP {reply.status_code}\n{text}"


def _without_user_texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_user_texts(item) for item in value]
    if isinstance(value, dict):
        return {
            name: f"({len(item)} characters)"
            if name in PRIVATE and isinstance(item, str)
            else _without_user_texts(item)
            for name, item in value.items()
        }
    return value
