# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user and password for a registry, as options give them or a Docker-style file holds them.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from ..._host.files import read_json
from ..._result import OperatorError, Problem
from .reference import DOCKER_HUB


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token in place of the password."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def credentials_from(path: str, host: str, option: str) -> Credentials | None:
    """The credentials for the registry in a file that ``docker login`` or ``apptainer registry login`` wrote.

    None where it has none for it. Raises OperatorError about ``option`` where it cannot be read or used.
    """

    def refused(text: str, remedy: str) -> OperatorError:
        return OperatorError(Problem(option, text, remedy, path))

    made = "docker login and apptainer registry login write one."
    try:
        content = read_json(path)
    except OSError as error:
        raise refused(
            f"{path} cannot be read ({error.strerror})", "Let the user that runs this task read it."
        ) from error
    except ValueError:
        # The text of the error may repeat what is in the file.
        raise refused(f"{path} is not valid JSON", f"Write it again: {made}") from None
    if content is None:
        raise refused(f"{path} is not there on the host", f"Name such a file: {made}")
    auths = content.get("auths") if isinstance(content, dict) else None
    if not isinstance(auths, dict):
        raise refused(f'{path} has no "auths"', f"Name such a file: {made}")
    entries = {_host(name): entry for name, entry in auths.items()}
    entry = entries.get(host)
    if entry is None:
        return None
    credentials = _credentials(entry)
    if credentials is None:
        helper = content.get("credsStore") or (content.get("credHelpers") or {}).get(host)
        kept = f" (the helper {helper} keeps it, and helpers are not asked)" if helper else ""
        raise refused(f"{path} names {host} but has no user and password for it{kept}", "Log in without a helper.")
    return credentials


def _host(name: str) -> str:
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    # docker login has these names for Docker Hub.
    return DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def _credentials(entry: Any) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if isinstance(entry.get("username"), str) and isinstance(entry.get("password"), str):
        return Credentials(entry["username"], entry["password"])
    try:
        text = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return Credentials(username, password) if colon else None
