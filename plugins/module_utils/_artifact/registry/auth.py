# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks a registry: the user and password that were given, or those in a Docker-style file.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from ..._host.files import read_json
from ..image.sources import DOCKER_HUB


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token in place of the password."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def credentials_from(path: str, host: str) -> Credentials | None:
    """What the file (as ``docker login`` or ``apptainer registry login`` writes it) has for the registry.

    None where it has nothing for it. Raises ValueError in words where it cannot be read or used.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"auth_file: {path} cannot be read ({error.strerror}).") from error
    except ValueError:
        # The text of the error may repeat what is in the file.
        raise ValueError(
            f"auth_file: {path} is not valid JSON. docker login and apptainer registry login make one."
        ) from None
    if content is None:
        raise ValueError(f"auth_file: {path} is not there on the host.")
    auths = content.get("auths") if isinstance(content, dict) else None
    if not isinstance(auths, dict):
        raise ValueError(f'auth_file: {path} has no "auths", as docker login writes it.')
    entries = {_host(name): entry for name, entry in auths.items()}
    entry = entries.get(host)
    if entry is None:
        return None
    credentials = _credentials(entry)
    if credentials is None:
        helper = content.get("credsStore") or (content.get("credHelpers") or {}).get(host)
        kept = f"; it is kept by the helper {helper}, which is not asked" if helper else ""
        raise ValueError(f"auth_file: {path} names {host} but has no user and password for it{kept}.")
    return credentials


def _host(name: str) -> str:
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    # What docker login calls the Hub.
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
