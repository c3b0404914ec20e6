# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of a model come from: what every kind of source can do.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...._fetch.reserve import Need
from ...._gguf.file import GgufError, split_paths
from ...._result import Problem
from ...downloads import Downloads
from ...staging import Staged


@dataclass(frozen=True)
class FileSpec:
    """One file of the model: its path on the host, and its sha256 and size in bytes where they are known."""

    path: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class ModelAccess:
    """What sources use of the host: ``environ``, its environment variables; ``ready``, whether the library for the
    network is there; ``hide``, which keeps a secret out of all output.
    """

    environ: Mapping[str, str]
    ready: Callable[[], bool]
    hide: Callable[[str], object]


@dataclass(frozen=True)
class Identified:
    """What a source says about the files now: the files with its sha256 and size, and the source of exactly these."""

    files: tuple[FileSpec, ...]
    source: ModelSource
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


class ModelSource:
    """The source of all files of one model; ``index`` is the number of a file, from 0.

    ``option`` is the option that gives it, and ``verb`` begins the action that brings a file. ``is_remote``: it needs
    the network.
    """

    option: str
    verb = "Fetch"
    is_remote = True

    def shown(self, index: int) -> str:
        """The address of the file without secrets."""
        raise NotImplementedError

    def problems(self) -> list[Problem]:
        """What is wrong with the options."""
        raise NotImplementedError

    def identify(self, files: Sequence[FileSpec], *, verify: str, offline: bool) -> Identified:
        """What the source says about the files now. Raises OperatorError."""
        return Identified(tuple(files), self)

    def fetch(self, index: int, file: FileSpec, place: str, downloads: Downloads) -> Staged:
        """Bring the file to ``place``, or to a path of its own in that folder. Raises OperatorError and OSError."""
        raise NotImplementedError

    def need(self, index: int, file: FileSpec, place: str, downloads: Downloads) -> Need:
        """The disk space that fetching the file takes. Raises OperatorError."""
        raise NotImplementedError

    def host_path(self, index: int) -> str | None:
        """The file of this host that is copied; None for a file from elsewhere."""
        return None

    def compares_addresses(self) -> bool:
        """Whether a file that is recorded as one from another address is brought again."""
        return True

    def recorded(self, index: int, stamp: Sequence[int] | None) -> dict[str, Any]:
        """The source as the record of the file has it. ``stamp`` is that of the file at host_path."""
        return {"url": self.shown(index)}

    def renames(self, index: int, recorded: Mapping[str, Any]) -> bool:
        """Whether the same content has another name than ``recorded`` now, so that only the record changes."""
        return False


def parts_of(address: str, files: int, option: str, shown: str) -> tuple[tuple[str, ...], list[Problem]]:
    """The addresses of all parts of a model of so many files, by that of any part; and what is wrong with it."""
    try:
        split_paths(shown)  # the error shows what it is given
        found = tuple(split_paths(address))
    except GgufError as error:
        return (address,) * files, [Problem(option, one.text, one.remedy) for one in error.problems]
    if len(found) == files:
        return found, []
    text = f"path names {files} file(s), and {shown} names {len(found)}"
    remedy = "Both must be unsplit, or both a part of as many files (<name>-00001-of-00003.gguf)."
    return (address,) * files, [Problem(option, text, remedy)]
