# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that Apptainer has to bring: built in a folder of its own beside its place, which is gone afterwards.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from ..registry.auth import Credentials
from .plan import ImageError
from .signature import Run

SUFFIX = ".build"


@contextmanager
def folder(place: str) -> Iterator[str]:
    """A folder for one build of what is to lie at ``place``, removed at the end with all that is in it.

    Those that killed runs left are removed first; a live one is locked. Raises OSError.
    """
    parent, name = os.path.split(place)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    _sweep(parent, name)
    made = tempfile.mkdtemp(prefix=f".{name}.", suffix=SUFFIX, dir=parent)
    handle = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield made
    finally:
        remove(made)
        os.close(handle)


def _sweep(parent: str, name: str) -> None:
    for entry in os.listdir(parent):
        if not (entry.startswith(f".{name}.") and entry.endswith(SUFFIX)):
            continue
        left = os.path.join(parent, entry)
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(left)
            finally:
                os.close(handle)


def remove(path: str) -> None:
    """Remove a folder with all that is in it, also what a container's layer made unwritable."""
    for top, folders, _files in os.walk(path):
        for one in folders:
            inside = os.path.join(top, one)
            if not os.path.islink(inside):
                with suppress(OSError):
                    os.chmod(inside, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def build(
    run: Run, program: str, address: str, place: str, credentials: Credentials | None = None, no_https: bool = False
) -> str:
    """Have Apptainer bring ``address`` into the folder ``place``; returns the file's path. Raises ImageError."""
    target = os.path.join(place, "image.sif")
    argv = [program, "pull", "--disable-cache", *(["--no-https"] if no_https else []), target, address]
    code, out, err = run(argv, environ(place, credentials))
    if code != 0 or not os.path.isfile(target):
        lines = [line.strip() for line in [*err.splitlines(), *out.splitlines()] if line.strip()]
        fatal = [line.partition(":")[2].strip() for line in lines if line.startswith(("FATAL:", "ERROR:"))]
        said = "; ".join(fatal or lines[-3:])[-600:] or f"exit status {code}"
        if credentials and credentials.password:
            said = said.replace(credentials.password, "***")
        raise ImageError(f"{os.path.basename(program)} could not pull {address}: {said}. What was in place still is.")
    return target


def environ(place: str, credentials: Credentials | None) -> dict[str, str]:
    """The variables of a build: everything it writes stays in ``place``; who asks is told here and not in argv."""
    temporary, cache = os.path.join(place, "tmp"), os.path.join(place, "cache")
    for one in (temporary, cache):
        os.makedirs(one, exist_ok=True)
    values: Mapping[str, str] = {"TMPDIR": temporary, "CACHEDIR": cache}
    if credentials:
        values = {**values, "DOCKER_USERNAME": credentials.username, "DOCKER_PASSWORD": credentials.password}
    # Both names: an old Singularity knows only its own.
    return {f"{prefix}_{name}": value for name, value in values.items() for prefix in ("APPTAINER", "SINGULARITY")}
