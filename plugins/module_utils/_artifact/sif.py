# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a SIF file on the host is: its format, its sha256, and the record that saves reading it again.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import identity

# The record folder, beside the images.
RECORDS = ".sif_image"

# SIF's global header: 32 bytes of launch script, then the magic (apptainer/sif, pkg/sif/sif.go).
MAGIC_OFFSET = 32
MAGIC = b"SIF_MAGIC\0"


def problems(path: str) -> list[str]:
    """What keeps the file from being an image, in words; empty for one that looks like a SIF. Reads its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(MAGIC_OFFSET + len(MAGIC))
    except IsADirectoryError:
        return [f"image: {path} is a folder; it has to be a SIF file."]
    except OSError as error:
        return [f"image: {path} cannot be read ({error.strerror}). Name a SIF file that user {os.geteuid()} may read."]
    if head[MAGIC_OFFSET:] == MAGIC:
        return []
    kind = "an HTML page" if head.lstrip()[:1] == b"<" else "empty" if not head else "something else"
    return [f"image: {path} is not a SIF image, it is {kind}. Pull it again, or name the right file."]


def stamp(path: str) -> list[int] | None:
    """What identifies this state of the file without reading it: size, mtime, ctime (ns), inode; None: no such file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def sha256(path: str) -> str:
    """The sha256 from the image's record, or by reading the image where there is no current one. Raises OSError."""
    known = identity.recorded(path, RECORDS)
    return known.sha256 if known else identity.hash_file(path)


def remember(path: str, digest: str, source: dict[str, str]) -> None:
    """Record the digest beside the image; a folder that is read-only costs a read later, that is all."""
    try:
        identity.record(path, RECORDS, digest, source)
    except OSError:
        return


def keep(path: str, digest: str, url: str) -> None:
    """Like remember, where no current record has the digest: a file that was touched is then read once, not always."""
    if identity.recorded(path, RECORDS) is None:
        remember(path, digest, {"url": identity.public_address(url)})


def pull_reason(path: str, wanted: str, policy: str) -> str | None:
    """Why the image has to be pulled, or None: the file with the wanted sha256 is there. Raises OSError.

    The policy ``always`` believes no record and reads the file.
    """
    if stamp(path) is None:
        return "it is not on the host"
    known = None if policy == "always" else identity.recorded(path, RECORDS)
    found = known.sha256 if known else identity.hash_file(path)
    return None if found == wanted else f"its sha256 is {found[:12]}..., wanted is {wanted[:12]}..."


def pull(url: str, path: str, wanted: str) -> int:
    """Bring the image to ``path`` by rename, so that a running server keeps the old one; returns the bytes fetched.

    Raises FetchError in words.
    """
    # Only a run that pulls needs the HTTP library.
    from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import fetch

    os.makedirs(os.path.dirname(path), exist_ok=True)
    fetched = fetch.fetch([fetch.Source(url)], path, size=None, sha256=wanted)
    # Under a strict umask the user whom a system unit runs as could not read what root has pulled.
    os.chmod(path, 0o644)
    identity.settle(path)
    remember(path, wanted, {"url": identity.public_address(url)})
    return fetched.bytes_fetched
