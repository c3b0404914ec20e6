# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's counterparts are made of: the programs, and split models. Built when they are first needed.

The programs come out of Debian's packages without being installed: a test leaves no web server behind on the machine.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from images import (
    EXCLUDED,
    MODEL_NAME,
    SIF_NAME,
    TINY_NAME,
    Images,
    build_once,
    build_tiny,
    building,
    built_path,
    in_scratch_host,
    log_of,
    mmdebstrap,
)
from state import CACHE, REPO, LabError, digest, exclusive, run_long, say

VERSION = 1  # raise it when a build function changes what it makes

PACKAGES = "nginx-light docker-registry btrfs-progs"
OLAH = REPO / ".build" / "olah"
OLAH_PINS = REPO / "requirements" / "olah.txt"

# The real model has 272 tensors, the tiny one 20: so many parts need so many tensors in each.
REAL_SPLIT = {3: 100}
TINY_SPLITS = {3: 7, 5: 4}


@dataclass(frozen=True)
class Stock:
    """The folders of what was built: programs, and models by the number of their parts."""

    programs: Path
    real: dict[int, Path]
    tiny: dict[int, Path]

    def program(self, name: str) -> list[str | Path]:
        """The beginning of the command that runs one of the programs, with the libraries that it came with."""
        libraries = next(self.programs.glob("usr/lib/*-linux-gnu"))
        loader = next(libraries.glob("ld-linux-*.so.*"))
        return [loader, "--library-path", libraries, self.programs / "usr" / name]


def build(images: Images) -> Stock:
    """Build what is missing."""
    tiny = build_tiny(images) / TINY_NAME
    real = images.model / MODEL_NAME
    stock = Stock(
        programs=built_path("programs", digest(VERSION, PACKAGES.split(), EXCLUDED)),
        real={parts: _split_path(real, most) for parts, most in REAL_SPLIT.items()},
        tiny={parts: _split_path(tiny, most) for parts, most in TINY_SPLITS.items()},
    )
    splits = [(path, real, REAL_SPLIT[parts], parts) for parts, path in stock.real.items()]
    splits += [(path, tiny, TINY_SPLITS[parts], parts) for parts, path in stock.tiny.items()]
    if not all(path.exists() for path in (stock.programs, *stock.real.values(), *stock.tiny.values())):
        with building():
            build_once(stock.programs, _build_programs)
            for path, model, most, parts in splits:
                build_once(path, partial(_build_split, images=images, model=model, most=most, parts=parts))
    with exclusive(CACHE / "olah.lock", "another lab is installing olah"):
        (CACHE / "log").mkdir(exist_ok=True)
        fill = [sys.executable, REPO / "tools" / "fill_venv.py", OLAH, OLAH_PINS]
        run_long("olah", [str(word) for word in fill], CACHE / "log" / "olah.log")
    return stock


def _build_programs(new: Path) -> None:
    say(f"unpacking {PACKAGES} from Debian trixie (about 15 s)")
    mmdebstrap("programs", new, "extract", ["trixie"], PACKAGES, [])


def _split_path(model: Path, most: int) -> Path:
    return built_path("split", digest(VERSION, model.parent.name, most))


def _build_split(new: Path, images: Images, model: Path, most: int, parts: int) -> None:
    say(f"splitting {model.name} into {parts} (about 5 s)")
    binds = {model.parent: "/build/model", images.sif: "/build/sif"}
    command = ["apptainer", "exec", "--bind", "/build", f"/build/sif/{SIF_NAME}"]
    command += ["llama-gguf-split", "--split", "--split-max-tensors", str(most)]
    command += [f"/build/model/{model.name}", f"/build/out/{model.stem}"]
    in_scratch_host("split", new, images.root, binds, command, log_of(new))
    if len(list(new.glob(f"*-of-{parts:05d}.gguf"))) != parts:
        found = ", ".join(sorted(path.name for path in new.iterdir()))
        raise LabError(f"llama-gguf-split made {found or 'nothing'} of {model.name}, expected {parts} parts")
