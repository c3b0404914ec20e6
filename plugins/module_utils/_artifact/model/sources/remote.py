# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources of models have in common that the fetch engine downloads from: sizes, mirrors, addresses.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from ...._fetch.part_file import content_id
from ...._fetch.reserve import Need
from ...._fetch.source import public_address
from ...._result import Problem
from ...downloads import Downloads
from ...staging import Staged
from .source import FileSpec, ModelSource, parts_of


class RemoteFiles(ModelSource):
    """``mirrors`` has the addresses of all files for each mirror."""

    mirrors: tuple[tuple[str, ...], ...]

    def engine_source(self, index: int, file: FileSpec) -> Any:
        """The engine.Source of a file. Raises OperatorError."""
        raise NotImplementedError

    def fetch(self, index: int, file: FileSpec, place: str, downloads: Downloads) -> Staged:
        from ...._fetch.engine import Source as EngineSource

        sources = [self.engine_source(index, file), *(EngineSource(mirror[index]) for mirror in self.mirrors)]
        return downloads.fetch(sources, place, file.path, size=file.size, sha256=file.sha256)

    def need(self, index: int, file: FileSpec, place: str, downloads: Downloads) -> Need:
        if file.size is not None and file.sha256:
            return Need(place, file.size, content_id(file.sha256, None), file.path)
        remote = downloads.inspect(self.engine_source(index, file), file.size)
        downloads.progress.learn(file.path, remote.size)
        return Need(place, remote.size, content_id(file.sha256, remote.validator), file.path)


def mirrors_of(
    params: Mapping[str, Any], files: Sequence[FileSpec]
) -> tuple[tuple[tuple[str, ...], ...], list[Problem]]:
    """The addresses of all files for each mirror, and what is wrong with them."""
    mirrors, problems = [], []
    for mirror in params["mirrors"]:
        problems += address_problems("mirrors", mirror)
        # One that ends with a slash is a folder of files with the names of the model.
        address = mirror + quote(files[0].path.rpartition("/")[2]) if mirror.endswith("/") else mirror
        parts, wrong = parts_of(address, len(files), "mirrors", public_address(address))
        mirrors.append(parts)
        problems += wrong
    return tuple(mirrors), problems


def address_problems(option: str, url: str) -> list[Problem]:
    """What is wrong with an address that the engine is to fetch from."""
    address = urlsplit(url)
    if address.scheme in ("http", "https") and address.hostname:
        return []
    text = f"{public_address(url)!r} is not an http or https address"
    return [Problem(option, text, "Write it like https://host/path.")]
