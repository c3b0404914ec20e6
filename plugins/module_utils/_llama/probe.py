# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image says of itself: its llama-server's options and build, and the CUDA that it was made for.

Private to gpufleet.llamacpp; may change at any time.

It is asked once for each content, and remembered in the home, beside the images. What cannot be read there, or cannot
be written, is asked again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._host import layout
from .._host.files import read_json, write_json
from .._host.runtime import Run
from . import help as help_text
from .help import Option

# Stands in the file: what another reader wrote is asked again. Raise it when this or help_text changes.
READER = 1
# Seconds; the answer takes less than one, and a driver that hangs takes for ever.
TIMEOUT = 60
TIMED_OUT = (124, 137)
# Exit status of Apptainer and Singularity where the container itself cannot be started.
RUNTIME_FAILED = 255
# Every llama-server has it.
MODEL = "--model"
VERSION = re.compile(r"^version: *(.+?) *$", re.MULTILINE)
# llama.cpp says "10434 (7e4c0a9)", or "0.7.0 (build 11669, commit ...)" where a packager gave it another number.
BUILD = re.compile(r"\bbuild (\d+)|^b?(\d+)(?= |-|$)")
CUDA_SCRIPT = (
    'echo "version=$CUDA_VERSION"; echo "require=$NVIDIA_REQUIRE_CUDA"; echo "libraries=$LD_LIBRARY_PATH"; '
    'echo "folder=$(readlink -f /usr/local/cuda)"'
)
CUDA = re.compile(r"^(?:version=|require=(?:.*\s)?cuda>=|folder=.*/cuda-)(\d+)\.(\d+)", re.MULTILINE)
# The folder of the libraries that let an image's CUDA run on the driver of an older one, on data centre GPUs.
COMPATIBLE = re.compile(r"^libraries=.*/cuda[^:]*/compat\b", re.MULTILINE)


@dataclass(frozen=True)
class ImageSays:
    """What is None or empty could not be learned. build: what --version prints; cuda: major and minor.

    failure: exit status and messages of a llama-server that does not even print its help; never remembered.
    """

    options: tuple[Option, ...] = ()
    build: str | None = None
    cuda: tuple[int, int] | None = None
    compatible: bool = False
    failure: tuple[int, str] | None = None


def build_number(build: str | None) -> int | None:
    """The number of llama.cpp's build in what --version says; None where there is none."""
    match = BUILD.search(build or "")
    return int(match[1] or match[2]) if match else None


def look(argv: Sequence[str], image: str, run: Run, *, home: str, sha256: str | None, remember: bool) -> ImageSays:
    """What the image behind the launch's command line says, from memory, or else asked in the very same container.

    ``sha256``: of the image; without it nothing is remembered. ``remember``: whether a file may be written.
    """
    server = argv.index(image) + 1
    known = remembered(argv[server], home=home, sha256=sha256)
    if known:
        return known
    said = _ask(argv[:server], argv[server], run)
    if sha256 and remember and said.options:
        _remember(_path(home, sha256), argv[server], said)
    return said


def remembered(server: str, *, home: str, sha256: str | None) -> ImageSays | None:
    """What is remembered of the image with this digest, without asking it."""
    if not sha256:
        return None
    try:
        value = read_json(_path(home, sha256))
        if not isinstance(value, dict) or (value["reader"], value["server"]) != (READER, server):
            return None
        return _from(value)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def bounded(argv: Sequence[str]) -> list[str]:
    """The command, ended where it hangs."""
    return ["timeout", "-k", "5", str(TIMEOUT), *argv]


def _ask(container: Sequence[str], server: str, run: Run) -> ImageSays:
    code, text, err = run(bounded([*container, server, "--help"]))
    if code != 0:
        return ImageSays(failure=(code, err))
    options = help_text.parse(text)
    if MODEL not in help_text.by_name(options):
        options = ()  # another layout than the one that is known here
    code, out, err = run(bounded([*container, server, "--version"]))
    found = VERSION.search(err) or VERSION.search(out)
    build = found[1] if code == 0 and found else None
    code, out, dummy = run(bounded([*container, "/bin/sh", "-c", CUDA_SCRIPT]))
    return ImageSays(options, build, *(cuda(out) if code == 0 else (None, False)))


def cuda(text: str) -> tuple[tuple[int, int] | None, bool]:
    """The CUDA that an image was made for, by its environment and its folders, and whether it has the libraries that
    let it run on an older driver.
    """
    match = CUDA.search(text)
    return (int(match[1]), int(match[2])) if match else None, bool(COMPATIBLE.search(text))


def _path(home: str, sha256: str) -> str:
    return os.path.join(home, layout.SHARED, layout.IMAGE_OPTIONS, f"{sha256}.json")


def _from(value: Mapping[str, Any]) -> ImageSays:
    options = tuple(
        Option(
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
    return ImageSays(options, build, made_for, bool(value["compatible"]))


def _remember(path: str, server: str, said: ImageSays) -> None:
    try:
        # Not the home itself: whatever is refused leaves nothing behind.
        if os.path.isdir(os.path.dirname(os.path.dirname(path))):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        write_json(path, {"reader": READER, "server": server, **asdict(said)}, 0o644)
    except OSError:
        pass  # it costs a second the next time
