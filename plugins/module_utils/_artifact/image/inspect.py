# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image has inside: its labels, and what its llama-server prints. One container answers it all.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._host import runtime
from ..._host.runtime import Run

# Version of what an image's record holds. A record with another number is made again.
READER = 1
KEYS = ("labels", "server_path", "build", "options_digest")
# llama-server prints an option's names in the first 40 columns, or on a line of their own (llama.cpp common/arg.cpp).
HELP_COLUMNS = 40
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
VERSION = re.compile(r"^version: *(.+?) *$", re.MULTILINE)
NVIDIA = "/dev/nvidiactl"
# Seconds. The answers take less than one; a driver that hangs never answers.
TIMEOUT = 60
TIMED_OUT = (124, 137)
# Exit status of Apptainer and Singularity where the container itself cannot be started.
RUNTIME_FAILED = 255
# Prints each answer as a section: a record separator, a name, an exit status, a newline, the text.
# $1 is the path of llama-server, or "" to search the image's PATH and then the other arguments.
SCRIPT = r"""
section() { printf '\036%s %s\n%s\n' "$1" "$2" "$3"; }
server=$1; shift
test "$server" || server=$(command -v llama-server) || for path; do test -x "$path" && server=$path && break; done
test -x "$server" && section server 0 "$server" || exit 0
text=$("$server" --version 2>&1); section version $? "$text"
text=$("$server" --help); section help $? "$text"
section cuda 0 "version=$CUDA_VERSION
require=$NVIDIA_REQUIRE_CUDA
libraries=$LD_LIBRARY_PATH
folder=$(readlink -f /usr/local/cuda)"
"""
SEPARATOR = "\x1e"


@dataclass(frozen=True)
class ImageReading:
    """What one container of an image printed; None or empty is not known.

    server: the path of llama-server in the image. build: what ``--version`` prints. cuda: the variables and the folder
    that show for which CUDA the image was made. failure: exit status and messages where ``--help`` was not printed.
    """

    server: str | None = None
    build: str | None = None
    help: str = ""
    cuda: str = ""
    failure: tuple[int, str] | None = None


# Keeps the reading of the image with this sha256, so that the image is not read again.
Remember = Callable[[str, ImageReading], None]


def learned(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an image's record holds about its inside; None where the image has to be read."""
    if details.get("reader") != READER:
        return None
    return {key: details.get(key) for key in KEYS}


def learn(run: Run, program: str, path: str, shown: str) -> tuple[dict[str, Any], list[str], ImageReading]:
    """Read the image at ``path``: the facts for its record, why some of them are None, and the reading.

    ``shown`` is the image's path in the warnings.
    """
    facts: dict[str, Any] = dict.fromkeys(KEYS)
    code, out, err = run([program, "inspect", "--json", path])
    facts["labels"] = _labels(out) if code == 0 else None
    if facts["labels"] is None:
        return facts, [_warning(program, shown, "cannot be inspected", err)], ImageReading()
    reading = read(container(program, path), None, run)
    messages = reading.failure[1] if reading.failure else ""
    facts["server_path"], facts["build"] = reading.server, reading.build
    if reading.server is None:
        places = ", ".join(runtime.SERVER_PATHS)
        what = f"has no llama-server on its PATH or at {places}"
        return facts, [_warning(program, shown, what, messages)], reading
    if reading.build is None:
        return facts, [_warning(program, shown, f"has {reading.server}, but --version fails", messages)], reading
    names = option_names(reading.help)
    facts["options_digest"] = options_digest(names) if names else None
    if facts["options_digest"] is None:
        what = f"has {reading.server}, but --help lists no options"
        return facts, [_warning(program, shown, what, messages)], reading
    return facts, [], reading


def container(program: str, path: str) -> list[str]:
    """The command that starts a container of the image at ``path``, up to the image."""
    # A server that was built for CUDA does not start without the driver's library, not even for --help.
    gpu = ["--nv"] if os.path.exists(NVIDIA) else []
    return [program, "exec", *runtime.ISOLATION, *gpu, path]


def read(begin: Sequence[str], server: str | None, run: Run) -> ImageReading:
    """Read an image in one container. ``begin``: the command up to the image.

    ``server``: the path of llama-server; None: search for it on the image's PATH, then at the known places.
    """
    command = ["/bin/sh", "-c", SCRIPT, "sh", server or "", *runtime.SERVER_PATHS]
    code, out, err = run(bounded([*begin, *command]))
    sections = _sections(out)
    if server and "server" not in sections:
        # The image has no shell, or no such server. With a server the help is enough; else the runtime says why.
        code, out, err = run(bounded([*begin, server, "--help"]))
        return ImageReading(server, help=out) if code == 0 else ImageReading(server, failure=(code, err))
    found = sections.get("server", (0, ""))[1] or None
    version, text = sections.get("version", (1, ""))
    build = VERSION.search(text) if version == 0 else None
    status, help_text = sections.get("help", (code, ""))
    failed = found is None or "help" not in sections or status != 0
    return ImageReading(
        found,
        build[1] if build else None,
        "" if failed else help_text,
        sections.get("cuda", (0, ""))[1],
        (status, err) if failed else None,
    )


def bounded(argv: Sequence[str]) -> list[str]:
    """The command, killed after TIMEOUT."""
    return ["timeout", "-k", "5", str(TIMEOUT), *argv]


def _sections(out: str) -> dict[str, tuple[int, str]]:
    """Exit status and text of each section that SCRIPT printed, by its name."""
    found = {}
    for part in out.split(SEPARATOR)[1:]:
        head, dummy, text = part.partition("\n")
        name, dummy, status = head.partition(" ")
        found[name] = (int(status), text.strip("\n"))
    return found


def option_head(line: str) -> str | None:
    """The part of a line of ``--help`` that has an option's names and value; None for a line without an option."""
    if not line.startswith("-") or line.startswith("---"):
        return None
    return line[:HELP_COLUMNS] if line[HELP_COLUMNS - 2 : HELP_COLUMNS] == "  " else line


def option_names(text: str) -> list[str]:
    """The names of all options in what ``llama-server --help`` prints, sorted."""
    return sorted({name for line in text.splitlines() for name in OPTION.findall(option_head(line) or "")})


def options_digest(names: list[str]) -> str:
    """One number for a list of options: the sha256 of the sorted names, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def _labels(text: str) -> dict[str, str] | None:
    try:
        labels = json.loads(text)["data"]["attributes"].get("labels") or {}
        return {str(name): str(value) for name, value in sorted(labels.items())}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _warning(program: str, shown: str, what: str, err: str) -> str:
    said = [line for line in err.strip().splitlines() if not line.startswith("INFO:")]
    tail = f" {os.path.basename(program)} printed: {' '.join(said)[-400:]}" if said else ""
    return f"The image {shown} {what}.{tail}"
