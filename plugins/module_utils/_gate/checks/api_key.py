# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: with a key file, the server rejects a request without a key.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from typing import Any

from ..._result import Problem
from .. import chat
from ..client import HTTP_TIMEOUT, ApiClient, NotProven
from ..server import Server


def check(server: Server) -> dict[str, Any]:
    """Send one request without a key. A completion, because builds before 2026 show /v1/models without a key."""
    if not server.api.key:
        return {}
    anonymous = ApiClient(server.api.url, None)
    status = anonymous.status("POST", chat.CHAT, chat.request(chat.QUESTION, 1), HTTP_TIMEOUT)
    if status != 401:
        text = f"a request without a key returned HTTP {status} instead of 401, so the server does not ask for a key"
        raise NotProven(Problem("api_key_file", text, "Check its content: without a valid key in it, all are served."))
    return {}
