# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an image is signed with a given public key, as Apptainer tells.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Protocol

PGP = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
# What tells the programs, old and new, where the key ring is.
RING = ("APPTAINER_KEYSDIR", "SINGULARITY_KEYSDIR", "SINGULARITY_SYPGPDIR")


class Run(Protocol):
    """The module's way to run a command: an argument list, and variables that are added to the environment."""

    def __call__(
        self, argv: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]: ...  # pragma: no cover


def key_digest(path: str) -> str | None:
    """The sha256 of the key's file; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def problem(run: Run, program: str, path: str, key: str, shown: str) -> str | None:
    """Why the image at ``path`` is not what the owner of ``key`` signed, told about ``shown``; None where it is.

    The key is a PEM file, or an armored PGP key, which goes into a key ring that lives as long as this. Raises OSError.
    """
    with open(key, "rb") as file:
        is_pgp = PGP in file.read()
    if not is_pgp:
        code, out, err = run([program, "verify", "--key", key, path])
        return None if code == 0 else _words(shown, key, out, err)
    ring = tempfile.mkdtemp(prefix="sif_image.")
    try:
        environ = {name: ring for name in RING}
        code, out, err = run([program, "key", "import", key], environ)
        if code != 0:
            return f"public_key: {os.path.basename(program)} cannot use {key}: {_last(out, err)}"
        if not any(os.path.getsize(os.path.join(ring, one)) for one in os.listdir(ring)):
            # Then it went into the user's own ring, where other keys may be, which would be accepted too.
            return f"public_key: this {os.path.basename(program)} takes no key ring of our own; give the key as PEM."
        # --local: nobody else's key server has a say in this.
        code, out, err = run([program, "verify", "--local", path], environ)
        return None if code == 0 else _words(shown, key, out, err)
    finally:
        shutil.rmtree(ring, ignore_errors=True)


def _words(shown: str, key: str, out: str, err: str) -> str:
    return (
        f"{shown} is not what the owner of the key {key} signed: {_last(out, err)}. Check both; nothing that fails "
        "this is put in place."
    )


def _last(out: str, err: str) -> str:
    """What the program complains about, in one line."""
    lines = [line.strip() for line in [*err.splitlines(), *out.splitlines()] if line.strip()]
    fatal = [line.partition(":")[2].strip() for line in lines if line.startswith(("FATAL:", "ERROR:"))]
    return "; ".join(fatal or lines[-2:])[-400:] or "it said nothing"
