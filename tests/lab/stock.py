# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's counterparts are made of: the programs, and a split model. Built when they are first asked for.

The programs come out of Debian's packages without being installed: a test leaves no web server behind on the machine.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from images import (
    BUILDERS,
    EXCLUDED,
    MODEL_NAME,
    MODEL_PACKAGE,
    MODEL_SHA256,
    SIF_NAME,
    Images,
    build_once,
    built_path,
    in_scratch_host,
    log_of,
    mmdebstrap,
)
from state import CACHE, REPO, LabError, digest, exclusive, remove_tree, run_long, say

VERSION = 1  # raise it when a build function changes what it makes

PACKAGES = "nginx-light docker-registry btrfs-progs"
OLAH = REPO / ".build" / "olah"
OLAH_PINS = REPO / "requirements" / "olah.txt"

# Of 272 tensors: in as many parts, so many tensors each.
SPLITS = {3: 100, 5: 60}
SPLIT_PREFIX = MODEL_NAME.removesuffix(".gguf")


@dataclass(frozen=True)
class Stock:
    """Where the built things lie."""

    programs: Path
    three: Path
    five: Path

    def program(self, name: str) -> list[str | Path]:
        """The beginning of the command that runs one of the programs, with the libraries that it came with."""
        libraries = next(self.programs.glob("usr/lib/*-linux-gnu"))
        loader = next(libraries.glob("ld-linux-*.so.*"))
        return [loader, "--library-path", libraries, self.programs / "usr" / name]


def build(images: Images) -> Stock:
    """Build what is missing."""
    stock = Stock(
        programs=built_path("programs", digest(VERSION, PACKAGES.split(), EXCLUDED)),
        three=built_path("split", digest(VERSION, MODEL_PACKAGE, MODEL_SHA256, SPLITS[3])),
        five=built_path("split", digest(VERSION, MODEL_PACKAGE, MODEL_SHA256, SPLITS[5])),
    )
    if not all(path.exists() for path in vars(stock).values()):
        with exclusive(CACHE / "lock", "another lab is building"):
            BUILDERS.kill()
            for left in CACHE.glob("building-*"):
                remove_tree(left)
            build_once(stock.programs, _build_programs)
            build_once(stock.three, lambda new: _build_split(new, images, 3))
            build_once(stock.five, lambda new: _build_split(new, images, 5))
    with exclusive(CACHE / "olah.lock", "another lab is installing olah"):
        (CACHE / "log").mkdir(exist_ok=True)
        fill = [sys.executable, REPO / "tools" / "fill_venv.py", OLAH, OLAH_PINS]
        run_long("olah", [str(word) for word in fill], CACHE / "log" / "olah.log")
    return stock


def _build_programs(new: Path) -> None:
    say(f"unpacking {PACKAGES} from Debian trixie (about 15 s)")
    mmdebstrap("programs", new, "extract", ["trixie"], PACKAGES, [])


def _build_split(new: Path, images: Images, parts: int) -> None:
    say(f"splitting the model into {parts} (about 5 s)")
    binds = {images.model: "/build/model", images.sif: "/build/sif"}
    command = ["apptainer", "exec", "--bind", "/build", f"/build/sif/{SIF_NAME}"]
    command += ["llama-gguf-split", "--split", "--split-max-tensors", str(SPLITS[parts])]
    command += [f"/build/model/{MODEL_NAME}", f"/build/out/{SPLIT_PREFIX}"]
    in_scratch_host("split", new, images.root, binds, command, log_of(new))
    if len(list(new.glob(f"*-of-{parts:05d}.gguf"))) != parts:
        found = ", ".join(sorted(path.name for path in new.iterdir()))
        raise LabError(f"llama-gguf-split made {found or 'nothing'} of {MODEL_NAME}, expected {parts} parts")
