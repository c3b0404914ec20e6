# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The name of an image in an OCI registry, parsed as Docker does. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..._result import OperatorError, Problem

DOCKER_HUB = "docker.io"
# The grammar of distribution/reference.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A manifest in an OCI registry. With a ``digest`` (sha256:...) the tag is ignored."""

    host: str
    repository: str
    tag: str
    digest: str | None

    @property
    def wanted(self) -> str:
        """What to ask the registry for."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def is_digest(text: str) -> bool:
    """Whether this is the digest of a manifest or a blob: sha256: and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def parse(scheme: str, name: str, option: str, *, default_host: str | None = None) -> Reference:
    """The reference of ``scheme``://``name``, which ``option`` gives. A name without a host is of ``default_host``.

    Raises OperatorError.
    """
    remedy = f"Write {scheme}://registry/name:tag or {scheme}://registry/name@sha256:<digest>."
    beginning, at, digest = name.partition("@")
    if at and not is_digest(digest):
        # The part before the @ may be a password, so nothing of it is shown.
        text = "the part behind the @ is not a digest (sha256: and 64 hexadecimal digits)"
        raise OperatorError(Problem(option, text, remedy))
    first, slash, path = beginning.partition("/")
    # As Docker does: a first part without a dot, a port or "localhost" is no host.
    has_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    if not has_host and default_host is None:
        raise OperatorError(Problem(option, f"{scheme}://{name} has no registry's host", remedy))
    host, path = (first, path) if has_host else (str(default_host), beginning)
    path, colon, tag = path.partition(":")
    if not has_host and "/" not in path:
        path = f"library/{path}"
    wrong = []
    if not _HOST.fullmatch(host):
        wrong.append(f"{host!r} is not a host")
    if not _REPOSITORY.fullmatch(path):
        wrong.append(f"{path!r} is not a name (lower-case letters, digits, and . _ - between them)")
    if colon and not _TAG.fullmatch(tag):
        wrong.append(f"{tag!r} is not a tag")
    if wrong:
        raise OperatorError(Problem(option, "; ".join(wrong), remedy))
    return Reference(host, path, tag or "latest", digest or None)
