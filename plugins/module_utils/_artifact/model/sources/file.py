# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that is copied from files of the same host (src).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...._result import Problem
from ...downloads import Downloads
from ...staging import Staged, copy
from .source import FileSpec, ModelAccess, ModelSource, parts_of


@dataclass(frozen=True)
class HostFiles(ModelSource):
    """``wrong``: what is wrong with the paths."""

    paths: tuple[str, ...]
    wrong: tuple[Problem, ...]

    option = "src"
    verb = "Copy"
    is_remote = False

    @classmethod
    def of(cls, params: Mapping[str, Any], files: Sequence[FileSpec], access: ModelAccess) -> HostFiles | None:
        """The source that the options give, if they give one of this kind."""
        if params["src"] is None:
            return None
        paths, wrong = parts_of(params["src"], len(files), cls.option, params["src"])
        return cls(paths, tuple(wrong))

    def shown(self, index: int) -> str:
        return self.paths[index]

    def host_path(self, index: int) -> str:
        return self.paths[index]

    def problems(self) -> list[Problem]:
        if self.paths[0].startswith("/"):
            return list(self.wrong)
        text = f"{self.paths[0]!r} is not an absolute path"
        return [*self.wrong, Problem("src", text, "Name a GGUF file on the host.")]

    def fetch(self, index: int, file: FileSpec, place: str, downloads: Downloads) -> Staged:
        downloads.progress.enter("copy", file.path)
        began = time.monotonic()
        path, sha256 = copy(self.paths[index], place)
        return Staged(path, sha256, time.monotonic() - began)

    def compares_addresses(self) -> bool:
        return False  # the contents are compared

    def recorded(self, index: int, stamp: Sequence[int] | None) -> dict[str, Any]:
        return {} if stamp is None else {"src": self.paths[index], "stamp": list(stamp)}
