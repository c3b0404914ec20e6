# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources of images have in common that Apptainer brings: each is built in a folder of its own.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...._result import OperatorError, Problem
from ...file_record import hash_file
from ...registry.auth import Credentials
from ...staging import Staged
from .source import ImageAccess, ImageFetch, ImageSource

SUFFIX = ".build"


@contextmanager
def folder(place: str) -> Iterator[str]:
    """A folder for one build of the file ``place``, removed with its content at the end.

    Folders that killed runs left are removed first; a live run holds a lock on its own. Raises OSError.
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
    """Remove a folder with its content, including folders that a container's layer made read-only."""
    for top, folders, _files in os.walk(path):
        for one in folders:
            inside = os.path.join(top, one)
            if not os.path.islink(inside):
                with suppress(OSError):
                    os.chmod(inside, 0o700)
    shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class ApptainerImage(ImageSource):
    """An image that ``apptainer pull`` brings."""

    needs_apptainer = True
    # Apptainer has the layers, their unpacked files and the new image on the disk at once (measured).
    copies = 3

    def pulled_address(self, job: ImageFetch) -> str:
        """The address for Apptainer."""
        return self.address

    @contextmanager
    def fetch(self, job: ImageFetch) -> Iterator[Staged]:
        if job.program is None:
            raise OperatorError(Problem("", f"{self.shown} cannot be pulled without apptainer or singularity"))
        job.access.downloads.progress.enter("build", job.path)
        began = time.monotonic()
        with folder(job.place) as place:
            path = build(job.access, job.program, self.pulled_address(job), place)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            sha256 = hash_file(path)
            yield Staged(path, sha256, time.monotonic() - began)


def build(access: ImageAccess, program: str, address: str, place: str) -> str:
    """Have Apptainer pull ``address`` into the folder ``place``; returns the file's path. Raises OperatorError."""
    target = os.path.join(place, "image.sif")
    argv = [program, "pull", "--disable-cache", *(["--no-https"] if access.no_https else []), target, address]
    code, out, err = access.run(argv, environ(place, access.credentials))
    if code != 0 or not os.path.isfile(target):
        said = complaint(out, err) or f"exit status {code}"
        if access.credentials and access.credentials.password:
            said = said.replace(access.credentials.password, "***")
        text = f"{os.path.basename(program)} could not pull {address}: {said}"
        raise OperatorError(Problem(access.names.src, text, "The image in place did not change."))
    return target


def complaint(out: str, err: str) -> str:
    """What the program complains about, in one line."""
    lines = [line.strip() for line in [*err.splitlines(), *out.splitlines()] if line.strip()]
    fatal = [line.partition(":")[2].strip() for line in lines if line.startswith(("FATAL:", "ERROR:"))]
    return "; ".join(fatal or lines[-3:])[-600:]


def environ(place: str, credentials: Credentials | None) -> dict[str, str]:
    """The variables of a build. Everything that it writes stays in ``place``. argv holds no credentials."""
    temporary, cache = os.path.join(place, "tmp"), os.path.join(place, "cache")
    for one in (temporary, cache):
        os.makedirs(one, exist_ok=True)
    values: Mapping[str, str] = {"TMPDIR": temporary, "CACHEDIR": cache}
    if credentials:
        values = {**values, "DOCKER_USERNAME": credentials.username, "DOCKER_PASSWORD": credentials.password}
    # Both names: an old Singularity knows only its own.
    return {f"{prefix}_{name}": value for name, value in values.items() for prefix in ("APPTAINER", "SINGULARITY")}
