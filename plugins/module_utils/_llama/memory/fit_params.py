# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's own llama-fit-params: the memory that a command line takes on each device. It loads no weights.

Private to gpufleet.llamacpp; may change at any time. The tool: llama.cpp tools/fit-params.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..._host.runtime import Run
from ..argv import spelled
from .options import PARALLEL

MIB = 1 << 20
HOST = "Host"
# Seconds. Reading a header takes one or two; a GPU that hangs never answers.
TIMEOUT = 120
# Runs the tool with those of llama-server's options that its own --help lists.
# It is beside llama-server ($1), on the image's PATH, or part of the official image's one program. Its core dump would
# be large: it aborts where it cannot read the model, and it has the GPUs open.
SCRIPT = r"""
ulimit -c 0; folder=$1; shift
if test -x "$folder/llama-fit-params"; then tool() { "$folder/llama-fit-params" "$@"; }
elif command -v llama-fit-params > /dev/null; then tool() { llama-fit-params "$@"; }
elif test -x "$folder/llama"; then tool() { "$folder/llama" fit-params "$@"; }
else exit 127; fi
known=" $(tool --help 2> /dev/null | sed -n '/^-/{s/^\(.\{38\}\)  .*/\1/;s/,/ /g;p;}' | tr '\n' ' ') "
case $known in *" -m "*) all= ;; *) all=yes ;; esac
keep=; left=$#
while test "$left" -gt 0; do
    case $1 in -[A-Za-z]* | --[A-Za-z]*) case $known in *" $1 "*) keep=yes ;; *) keep=$all ;; esac ;; esac
    test "$keep" && set -- "$@" "$1"
    shift; left=$((left - 1))
done
tool "$@"
"""
NOT_THERE = 127
OPTION = re.compile(r"--?[A-Za-z]")
UNLOADABLE = re.compile(r"error loading model: (?:llama_model_loader: )?(.+)")
IS_ERROR = re.compile(r"(?i) E |^error|^fatal|GGML_ASSERT")
LINE = re.compile(r"^(\S+) (\d+) (\d+) (\d+) *$", re.MULTILINE)
# Options that the tool has and does not get: --log-file truncates its file, the others are given a value here.
DROPPED = frozenset((*PARALLEL, "--log-file", "-fitp", "--fit-print"))


@dataclass(frozen=True)
class Device:
    """Bytes on one device. ``name`` is llama.cpp's, such as CUDA0; Host is the host's own memory."""

    name: str
    model: int
    context: int
    compute: int


@dataclass(frozen=True)
class DeviceTable:
    """The tool's answer: devices, or why llama.cpp cannot load the model (``refused``), or why there is none."""

    devices: tuple[Device, ...] = ()
    refused: str = ""
    silent: str = ""


def ask(container: Sequence[str], server: str, arguments: Sequence[str], slots: int, run: Run) -> DeviceTable:
    """Run the tool for a launch's whole command line, in the same container with the same GPUs."""
    # Without -np llama-server makes several slots, and the tool makes one.
    words = [*without(arguments, DROPPED), "-np", str(slots), "-fitp", "on"]
    shell = ["/bin/sh", "-c", SCRIPT, "sh", os.path.dirname(server) or ".", *words]
    return read(*run(["timeout", "-k", "5", str(TIMEOUT), *container, *shell]))


def without(arguments: Sequence[str], dropped: frozenset[str]) -> list[str]:
    """The arguments without these options and their values, with options in the spelling of ``--help``."""
    kept: list[str] = []
    keep = True
    for argument in arguments:
        is_option = OPTION.match(argument) is not None
        if is_option:
            keep = spelled(argument) not in dropped
        if keep:
            kept.append(spelled(argument) if is_option else argument)
    return kept


def read(code: int, out: str, err: str) -> DeviceTable:
    """What exit status, output and messages of the tool mean."""
    devices = parse(out)
    if code == 0 and any(device.name == HOST for device in devices):
        return DeviceTable(devices=devices)
    if code == NOT_THERE:
        return DeviceTable(silent="the image has no llama-fit-params")
    broken = UNLOADABLE.search(err)
    if broken:
        return DeviceTable(refused=broken[1].strip())
    if code in (124, 137):
        return DeviceTable(silent=f"the image's llama-fit-params did not answer within {TIMEOUT} s")
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    errors = [line for line in lines if IS_ERROR.search(line)] or lines[-1:]
    shown = "; ".join(errors[:3])[:400]
    return DeviceTable(silent=f"the image's llama-fit-params failed (exit status {code}): {shown}")


def parse(out: str) -> tuple[Device, ...]:
    """The devices of the tool's table, which is in MiB."""
    return tuple(Device(name, *(int(number) * MIB for number in numbers)) for name, *numbers in LINE.findall(out))
