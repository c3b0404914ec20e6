# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access to a model hub: the token, from an option or a file, and the client, which is made when it is needed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..._result import OperatorError, Problem


@dataclass(frozen=True)
class HubAccess:
    """``ready``: whether the library for requests is there; ``hide`` keeps a secret out of all output."""

    endpoint: str
    token: str | None = field(repr=False)
    token_file: str | None
    ca_path: str | None
    ready: Callable[[], bool]
    hide: Callable[[str], object]
    made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def hub(self) -> Any:
        """The hub.Hub; None where it cannot be asked now. Raises OperatorError."""
        if "hub" not in self.made and self.ready():
            from .hub import Hub

            self.made["hub"] = Hub(self.endpoint, self._token(), self.ca_path)
        return self.made.get("hub")

    def _token(self) -> str | None:
        token, option, holder = self.token, "token", "it"
        if self.token_file:
            option, holder = "token_file", self.token_file
            try:
                with open(self.token_file, encoding="utf-8") as file:
                    token = file.read(4096)
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                remedy = f"It has to hold the hub's token, and the user {os.geteuid()} has to be able to read it."
                raise OperatorError(Problem(option, f"{self.token_file} cannot be read ({why})", remedy)) from None
        if token is None:
            return None
        token = token.strip()
        if token:
            self.hide(token)
        if not re.fullmatch("[!-~]+", token):
            remedy = "A token is one word of printable ASCII characters."
            raise OperatorError(Problem(option, f"{holder} holds no token", remedy))
        return token
