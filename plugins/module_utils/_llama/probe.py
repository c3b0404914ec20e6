# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the llama-server of an image is: its options, its build, and the CUDA version that it was made for.

Private to gpufleet.llamacpp; may change at any time.

An image is read once for each content. The facts are cached in the home, beside the images. A cache file that cannot
be read or written costs one more container start, nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._artifact.image import inspect as image_inspect
from .._artifact.image.inspect import ImageReading
from .._host import layout
from .._host.files import read_json, write_json
from .._host.runtime import Run
from . import help as help_text
from .help import ServerOption

# Version of the cache file. A file with another number is made again. Raise it when this file or help.py changes.
READER = 1
# Every llama-server has this option.
MODEL = "--model"
# llama.cpp prints "10434 (7e4c0a9)"; packagers print their own number, "0.7.0 (build 11669, commit ...)".
BUILD = re.compile(r"\bbuild (\d+)|^b?(\d+)(?= |-|$)")
CUDA = re.compile(r"^(?:version=|require=(?:.*\s)?cuda>=|folder=.*/cuda-)(\d+)\.(\d+)", re.MULTILINE)
# Libraries that let an image's CUDA run on an older driver, on data centre GPUs.
COMPATIBLE = re.compile(r"^libraries=.*/cuda[^:]*/compat\b", re.MULTILINE)


@dataclass(frozen=True)
class ServerFacts:
    """The llama-server of an image; None or empty is not known.

    build: what ``--version`` prints. cuda: major and minor. compatible: the image has the libraries for older drivers.
    failure: exit status and messages where ``--help`` was not printed; never cached.
    """

    options: tuple[ServerOption, ...] = ()
    build: str | None = None
    cuda: tuple[int, int] | None = None
    compatible: bool = False
    failure: tuple[int, str] | None = None


@dataclass(frozen=True)
class FactsCache:
    """The facts of a home's images, one file for each content. ``writes``: False in check mode."""

    home: str
    writes: bool

    def get(self, sha256: str | None, server: str) -> ServerFacts | None:
        """The facts of the llama-server at this path in the image with this sha256; None where they are not cached."""
        if not sha256:
            return None
        try:
            value = read_json(self._path(sha256))
            if not isinstance(value, dict) or (value["reader"], value["server"]) != (READER, server):
                return None
            return _from_json(value)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def put(self, sha256: str | None, reading: ImageReading) -> None:
        """Cache what a reading shows. Does nothing for an incomplete reading and where the home takes no file."""
        facts = facts_of(reading)
        if not (self.writes and sha256 and facts.options):
            return
        path = self._path(sha256)
        try:
            # Do not create the home itself: a refused task leaves no trace.
            if os.path.isdir(os.path.join(self.home, layout.SHARED)):
                os.makedirs(os.path.dirname(path), exist_ok=True)
            write_json(path, {"reader": READER, "server": reading.server, **asdict(facts)}, 0o644)
        except OSError:
            pass

    def _path(self, sha256: str) -> str:
        return os.path.join(self.home, layout.SHARED, layout.IMAGE_OPTIONS, f"{sha256}.json")


def build_number(build: str | None) -> int | None:
    """The number of llama.cpp's build in what ``--version`` prints; None where it has none."""
    match = BUILD.search(build or "")
    return int(match[1] or match[2]) if match else None


def probe(container: Sequence[str], server: str, run: Run, cache: FactsCache, sha256: str | None) -> ServerFacts:
    """The facts of a launch's llama-server: from the cache, or from a container that is started as the launch's is.

    ``sha256``: of the image; None: the facts are not cached.
    """
    known = cache.get(sha256, server)
    if known:
        return known
    reading = image_inspect.read(container, server, run)
    cache.put(sha256, reading)
    return facts_of(reading)


def facts_of(reading: ImageReading) -> ServerFacts:
    """What a reading shows."""
    if reading.failure:
        return ServerFacts(failure=reading.failure)
    options = help_text.parse(reading.help)
    if MODEL not in help_text.by_name(options):
        options = ()  # a layout that help.py does not know
    return ServerFacts(options, reading.build, *cuda(reading.cuda))


def cuda(text: str) -> tuple[tuple[int, int] | None, bool]:
    """The CUDA version that an image was made for, and whether it has the libraries for older drivers."""
    match = CUDA.search(text)
    return (int(match[1]), int(match[2])) if match else None, bool(COMPATIBLE.search(text))


def _from_json(value: Mapping[str, Any]) -> ServerFacts:
    options = tuple(
        ServerOption(
            names=tuple(map(str, option["names"])),
            hint=str(option["hint"]),
            about=str(option["about"]),
            env=str(option["env"]),
            choices=tuple(map(str, option["choices"])),
            terms=tuple(map(str, option["terms"])),
        )
        for option in value["options"]
    )
    if not options or not all(option.names for option in options):
        raise ValueError("no options")
    made_for = (int(value["cuda"][0]), int(value["cuda"][1])) if value["cuda"] else None
    build = None if value["build"] is None else str(value["build"])
    return ServerFacts(options, build, made_for, bool(value["compatible"]))
