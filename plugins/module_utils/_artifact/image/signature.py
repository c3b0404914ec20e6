# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signature of an image, verified by Apptainer with a given public key.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile

from ..._result import Problem
from .sources.apptainer import complaint
from .sources.source import RunCommand

PGP = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
# The variables that give the key ring, for old and new programs.
RING = ("APPTAINER_KEYSDIR", "SINGULARITY_KEYSDIR", "SINGULARITY_SYPGPDIR")


def key_digest(path: str) -> str | None:
    """The sha256 of the key's file; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def problem(run: RunCommand, program: str, path: str, key: str, shown: str) -> Problem | None:
    """Why the image at ``path`` is not signed with ``key``; None where it is. ``shown``: what the problem calls it.

    The key is a PEM file, or an armored PGP key, which is imported into a temporary key ring. Raises OSError.
    """
    with open(key, "rb") as file:
        is_pgp = PGP in file.read()
    if not is_pgp:
        code, out, err = run([program, "verify", "--key", key, path])
        return None if code == 0 else _not_signed(shown, key, out, err)
    ring = tempfile.mkdtemp(prefix="sif_image.")
    try:
        environ = {name: ring for name in RING}
        code, out, err = run([program, "key", "import", key], environ)
        name = os.path.basename(program)
        if code != 0:
            return Problem("public_key", f"{name} cannot use {key}: {_said(out, err)}", "Give a PEM or PGP key.")
        if not any(os.path.getsize(os.path.join(ring, one)) for one in os.listdir(ring)):
            # The key is in the user's own ring then, and other keys in it would be accepted too.
            return Problem("public_key", f"this {name} supports no temporary key ring", "Give the key as PEM.")
        # --local: no key server is asked.
        code, out, err = run([program, "verify", "--local", path], environ)
        return None if code == 0 else _not_signed(shown, key, out, err)
    finally:
        shutil.rmtree(ring, ignore_errors=True)


def _not_signed(shown: str, key: str, out: str, err: str) -> Problem:
    text = f"{shown} is not signed with the key {key}: {_said(out, err)}"
    return Problem("public_key", text, "Check both. Only an image with a valid signature is put in place.")


def _said(out: str, err: str) -> str:
    return complaint(out, err) or "it gave no reason"
