# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to see of a server that failed: the lines of its log that tell why, and files to keep for later.

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
except ImportError:  # then nothing is asked of the server
    requests = None  # type: ignore[assignment]

# llama-server's log line: "0.00.123.456 E text" (llama.cpp common/log.cpp), or what the argument parser and the
# container runtime print without a level.
ERROR_LINE = re.compile(
    r"^\S*\s?\d+\.\d\d\.\d{3}\.\d{3} E |^(error|FATAL|ERROR|terminate called)\b|: error\b", re.IGNORECASE
)
SHOWN = 5

# Seconds for one answer of a server that may hang, and bytes of it that are kept.
ASK_TIMEOUT = 5
ASK_BYTES = 1 << 20
# What is asked, and the file that it is kept in. /slots shows the prompts of others, so of those only the length stays.
QUESTIONS = {
    "health.json": "/health",
    "props.json": "/props",
    "models.json": "/v1/models",
    "slots.json": "/slots",
    "metrics.txt": "/metrics",
}
PRIVATE = ("prompt", "generated")
# Arguments whose next one is a secret, and variables in NAME=value whose value is one.
SECRET_OPTIONS = ("--api-key", "--hf-token", "-hft")
SECRET_NAME = re.compile(r"(?i)^([A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)[A-Z0-9_]*)=.*", re.DOTALL)
HIDDEN = "(hidden)"


def this_start(lines: Sequence[str], mark: str) -> list[str]:
    """The lines since the runner's last mark of a start; all of them where there is no mark."""
    for number in range(len(lines) - 1, -1, -1):
        if mark in lines[number]:
            return list(lines[number:])
    return list(lines)


def error_lines(lines: Sequence[str]) -> list[str]:
    """The first lines that report an error: the last ones are consequences, and the logger can lose them.

    Each is given once: llama-server reports the same error in its fitting pass and in the real load.
    """
    found: dict[str, None] = {}
    for line in lines:
        if ERROR_LINE.search(line):
            text = re.sub(r"^\d+\.\d\d\.\d{3}\.\d{3} E\s+", "", line.strip())
            found.setdefault(text, None)
    return list(found)[:SHOWN]


def explain(reason: str, lines: Sequence[str]) -> str:
    """One message: what happened, and the log lines that say why."""
    telling = error_lines(lines) or [line for line in lines if line.strip()][-SHOWN:]
    if not telling:
        return f"{reason}. Its log is empty."
    shown = "\n".join(f"    {line[:300]}" for line in telling)
    return f"{reason}. The log says:\n{shown}"


def collect(
    url: str,
    key: str | None,
    lines: Sequence[str],
    argv: Sequence[str],
    account: Mapping[str, Any],
    gpus: Any,
) -> dict[str, bytes]:
    """Everything that helps to understand a failure, as files by name; no secret is in any of them.

    ``account`` is the runner's (with the exit status, if there is one), ``gpus`` the host's GPUs as gpu_info gives
    them, or in words why not. The server is asked what it is and does, all at once, because it may hang; where it does
    not answer, the file says so. Raises nothing.
    """
    files = {
        layout.LOG: "\n".join(lines) + "\n",
        "argv.json": _pretty(redact(argv)),
        layout.STATE: _pretty(account),
        "gpus.json": _pretty(gpus),
    }
    with ThreadPoolExecutor(max_workers=len(QUESTIONS)) as pool:
        answers = pool.map(lambda path: _ask(url + path, key), QUESTIONS.values())
        files.update(zip(QUESTIONS, answers))
    return {name: _without(text, key).encode("utf-8", "replace") for name, text in files.items()}


def redact(argv: Sequence[str]) -> list[str]:
    """The argument list with every secret in it hidden, so that it can be shown and kept."""
    shown, hide = [], False
    for argument in argv:
        shown.append(HIDDEN if hide else SECRET_NAME.sub(rf"\1={HIDDEN}", argument))
        hide = argument.replace("_", "-") in SECRET_OPTIONS
    return shown


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"


def _without(text: str, key: str | None) -> str:
    return text.replace(key, HIDDEN) if key else text


def _ask(url: str, key: str | None) -> str:
    """The answer to a GET, or in words why there is none."""
    if requests is None:
        return "Not asked: the Python library requests is missing on the host.\n"
    try:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = session.get(url, headers=headers, timeout=ASK_TIMEOUT, allow_redirects=False)
            text = answer.text[:ASK_BYTES]
    except requests.RequestException as error:
        return f"No answer within {ASK_TIMEOUT} s: {error}\n"
    with contextlib.suppress(ValueError):  # /metrics is no JSON
        text = _pretty(_discreet(json.loads(text)))
    return text if answer.status_code == 200 else f"HTTP {answer.status_code}\n{text}"


def _discreet(value: Any) -> Any:
    """The value with the texts of people who use the server taken out."""
    if isinstance(value, list):
        return [_discreet(item) for item in value]
    if isinstance(value, dict):
        return {
            name: f"({len(item)} characters)" if name in PRIVATE and isinstance(item, str) else _discreet(item)
            for name, item in value.items()
        }
    return value
