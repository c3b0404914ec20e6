# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image comes from: an operator's address, taken apart and in canonical form. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..._fetch.source import public_address

SCHEMES = ("http", "https", "oras", "docker", "library")
DOCKER_HUB = "docker.io"
# distribution/reference, the grammar of an image's name; the host is told apart below.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LIBRARY_PIN = re.compile(r":sha256\.[0-9a-f]{64}$")


@dataclass(frozen=True)
class Reference:
    """A manifest in an OCI registry. ``digest`` (sha256:...) says exactly which, and then the tag says nothing."""

    host: str
    repository: str
    tag: str
    digest: str | None

    @property
    def wanted(self) -> str:
        """What the registry is asked for."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


@dataclass(frozen=True)
class Origin:
    """Where an image comes from. ``kind``: file, http, oras, docker or library; ``address`` as it was given.

    ``shown`` is the address as it may be printed and recorded; ``reference`` is set for oras and docker.
    """

    kind: str
    address: str
    shown: str
    reference: Reference | None = None

    @property
    def pin(self) -> str | None:
        """The digest of the manifest, where the address names one."""
        return self.reference.digest if self.reference else None

    @property
    def may_move(self) -> bool:
        """Whether the same address may hold another image tomorrow."""
        if self.kind == "library":
            return _LIBRARY_PIN.search(self.address) is None
        return self.pin is None


def origin_of(address: str) -> Origin:
    """The address of an image: an absolute path, http(s)://, oras://, docker:// or library://. Raises ValueError."""
    scheme, found, rest = address.partition("://")
    if not found:
        if not address.startswith("/"):
            raise ValueError(f"src must be an absolute path on the host or an address, and it is {address!r}.")
        return Origin("file", address, address)
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        raise ValueError(
            f"src must be a path or begin with {', '.join(f'{one}://' for one in SCHEMES)}, not {scheme}://."
        )
    if scheme in ("http", "https"):
        try:
            there = urlsplit(address).hostname
        except ValueError:
            there = None
        if not there:
            raise ValueError(
                "src must be an http or https address with a host, and this one has none that can be read."
            )
        return Origin("http", address, public_address(address))
    if scheme == "library":
        if not re.fullmatch(r"[\w./:@-]+", rest):
            raise ValueError(f"src must be library://entity/collection/container:tag, and it is {address!r}.")
        return Origin("library", address, address)
    reference = _reference(scheme, rest)
    return Origin(scheme, address, f"{scheme}://{reference}", reference)


def _reference(scheme: str, rest: str) -> Reference:
    name, at, digest = rest.partition("@")
    first, slash, path = name.partition("/")
    # As Docker does: without a dot, a port or "localhost" the first part is no host, and the name is one of the Hub.
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = (first, path) if is_host else (DOCKER_HUB, name)
    path, colon, tag = path.partition(":")
    if scheme == "docker" and not is_host and "/" not in path:
        path = f"library/{path}"
    if scheme == "oras" and not is_host:
        raise ValueError(
            f"src must be oras://registry/name:tag, with the registry's host, and it has none: {_plain(rest)}."
        )
    problems = []
    if not _HOST.fullmatch(host):
        problems.append(f"{host!r} is no host")
    if not _REPOSITORY.fullmatch(path):
        problems.append(f"{path!r} is no name (lower-case letters, digits, and . _ - between them)")
    if colon and not _TAG.fullmatch(tag):
        problems.append(f"{tag!r} is no tag")
    if at and not _DIGEST.fullmatch(digest):
        # What stands before an @ may be a password that was meant for a URL.
        problems.append("what follows the @ is no digest (sha256: and 64 hexadecimal digits)")
    if problems:
        raise ValueError(f"src must be {scheme}://registry/name:tag or ...@sha256:<digest>; {'; '.join(problems)}.")
    return Reference(host, path, tag or "latest", digest or None)


def _plain(rest: str) -> str:
    return repr(rest.rpartition("@")[2] if "@sha256:" not in rest else rest)
