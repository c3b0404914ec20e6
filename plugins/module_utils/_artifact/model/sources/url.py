# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that is downloaded from an http or https address (url).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...._fetch.source import public_address
from ...._result import Problem
from .remote import RemoteFiles, address_problems, mirrors_of
from .source import FileSpec, ModelAccess, parts_of


@dataclass(frozen=True)
class UrlFiles(RemoteFiles):
    """``wrong``: what is wrong with the options."""

    urls: tuple[str, ...]
    mirrors: tuple[tuple[str, ...], ...]
    wrong: tuple[Problem, ...]

    option = "url"

    @classmethod
    def of(cls, params: Mapping[str, Any], files: Sequence[FileSpec], access: ModelAccess) -> UrlFiles | None:
        """The source that the options give, if they give one of this kind."""
        url = params["url"]
        if url is None:
            return None
        urls, problems = parts_of(url, len(files), cls.option, public_address(url))
        mirrors, wrong = mirrors_of(params, files)
        problems += [*address_problems("url", url), *wrong]
        if mirrors and not params["sha256"]:
            text = "mirrors are given without sha256, so nothing proves that they hold the same file as url"
            problems.append(Problem("mirrors", text, "Give sha256."))
        return cls(urls, mirrors, tuple(problems))

    def shown(self, index: int) -> str:
        return public_address(self.urls[index])

    def problems(self) -> list[Problem]:
        return list(self.wrong)

    def engine_source(self, index: int, file: FileSpec) -> Any:
        from ...._fetch.engine import Source as EngineSource

        return EngineSource(self.urls[index])
