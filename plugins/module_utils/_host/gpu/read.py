# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs of the host, as they are now: what they hold, who is on them, and how they are linked.

Private to gpufleet.llamacpp; may change at any time.

NVML itself is asked in nvml.py, in a process of its own: a sick GPU can hang inside the driver, and only a process can
be left behind there.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import errors as nvml_errors
from . import nvml

# Without the persistence daemon the driver wakes every GPU first, some seconds for each.
TIMEOUT = 60.0
NO_DRIVER = (nvml_errors.LIBRARY_NOT_FOUND, nvml_errors.DRIVER_NOT_LOADED)


class NvmlUnavailable(Exception):
    """No GPU could be read. The message says why and what to do; code is NVML's, or None where NVML gave none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code

    @property
    def no_gpu(self) -> bool:
        """Whether this is simply a host without NVIDIA GPUs, as opposed to one whose GPUs do not work."""
        return self.code in NO_DRIVER and not nvml_errors.pci_gpus()


class PynvmlMissing(NvmlUnavailable):
    """The Python library nvidia-ml-py cannot be imported here."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU; user and command are None where this user may not see the process."""

    pid: int
    memory: int | None  # bytes
    user: str | None
    command: str | None


@dataclass(frozen=True)
class Gpu:
    """One GPU. Where error is set, what could not be read any more is empty, 0 or None.

    Optional facts are None where the GPU or its driver does not know them.
    """

    index: int  # in PCI order, as CUDA counts with CUDA_DEVICE_ORDER=PCI_BUS_ID while no GPU is lost
    uuid: str = ""
    pci_bus_id: str = ""
    name: str = ""
    memory_total: int = 0  # bytes; total = reserved + used + free
    memory_reserved: int = 0  # bytes that the driver keeps for itself
    memory_used: int = 0  # bytes
    memory_free: int = 0  # bytes
    utilization: int | None = None  # percent
    compute_mode: str | None = None  # default, exclusive_process, prohibited
    mig: bool | None = None
    ecc: bool | None = None
    ecc_corrected: int | None = None  # errors since the driver was loaded
    ecc_uncorrected: int | None = None
    remapped_rows: int | None = None  # of the memory, replaced for ever after errors
    remapping_pending: bool | None = None  # more are replaced at the next reset
    remapping_failed: bool | None = None
    recovery_action: str | None = None  # what the driver wants done after an Xid error, "none" on a healthy GPU
    nvlinks: int | None = None  # active ones
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Link:
    """How two GPUs reach each other."""

    gpus: tuple[int, int]  # their indexes
    nvlink: bool | None
    p2p: bool | None  # may read each other's memory, over whatever lies between
    path: str | None  # the nearest common part of the PCI tree


@dataclass(frozen=True)
class Reading:
    """Everything that NVML said at one time. gpus are in PCI order."""

    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    driver_version: str | None
    cuda_version: str | None  # the newest CUDA that the driver runs


NOTHING = Reading(gpus=(), links=(), driver_version=None, cuda_version=None)


def as_dict(reading: Reading) -> dict[str, Any]:
    """The reading as plain data, for a module's result."""
    return asdict(reading)


def read_gpus(timeout: float = TIMEOUT) -> list[Gpu]:
    """The GPUs in PCI order. Raises NvmlUnavailable as read() does."""
    return list(read(timeout).gpus)


def read_memory(timeout: float = TIMEOUT) -> list[Gpu]:
    """The GPUs in PCI order with their memory and processes alone, which is quick. Raises NvmlUnavailable as read()."""
    return list(read(timeout, facts=False).gpus)


def read(timeout: float = TIMEOUT, facts: bool = True) -> Reading:
    """Everything about the host's GPUs, within so many seconds; without facts only what read_memory() is for.

    A GPU that is lost or sick is in the list with its error; it never hides the others. Raises NvmlUnavailable where
    nothing can be read at all, PynvmlMissing where nvidia-ml-py is not installed (but the driver's library is).
    """
    if not nvml.library_present():
        raise NvmlUnavailable(nvml_errors.of_nvml(nvml_errors.LIBRARY_NOT_FOUND), nvml_errors.LIBRARY_NOT_FOUND)
    if nvml.pynvml is None:
        raise PynvmlMissing(
            f"The GPUs cannot be read: the Python library nvidia-ml-py (pynvml) is not installed for {sys.executable}. "
            "The role gpufleet.llamacpp.llamacpp_host installs it into the host's environment."
        )
    answer = _in_child(lambda: nvml.answer(facts), timeout)
    if "code" in answer:
        raise NvmlUnavailable(str(answer["message"]), int(answer["code"]))
    return _reading(answer)


def _reading(answer: Mapping[str, Any]) -> Reading:
    gpus = [
        Gpu(**{**gpu, "processes": tuple(GpuProcess(**process) for process in gpu.get("processes", ()))})
        for gpu in answer["gpus"]
    ]
    return Reading(
        gpus=tuple(gpus),
        links=tuple(Link(**{**link, "gpus": tuple(link["gpus"])}) for link in answer["links"]),
        driver_version=answer["driver_version"],
        cuda_version=answer["cuda_version"],
    )


def _in_child(work: Callable[[], Mapping[str, Any]], timeout: float) -> dict[str, Any]:
    """What work returns, out of a child process that gets so many seconds.

    Raises NvmlUnavailable when it takes longer or dies, RuntimeError with its traceback when it raises.
    """
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        _child(work, sink)
    os.close(sink)
    try:
        data = _read_until(source, time.monotonic() + timeout)
    finally:
        os.close(source)
        if not _reaped(child, 0):
            # A process that waits inside the driver does not even die of SIGKILL: it is not waited for longer.
            os.kill(child, signal.SIGKILL)
            _reaped(child, 2.0)
    if data is None:
        raise NvmlUnavailable(
            f"NVIDIA's driver did not answer within {timeout:g} s: a GPU probably hangs. {nvml_errors.KERNEL_LOG} "
            "Usually only a reboot of the host helps."
        )
    if not data:
        raise NvmlUnavailable(f"The process that reads the GPUs died inside NVIDIA's library. {nvml_errors.KERNEL_LOG}")
    answer = json.loads(data)
    if "traceback" in answer:
        raise RuntimeError(answer["traceback"])
    return answer


def _child(work: Callable[[], Mapping[str, Any]], sink: int) -> None:
    """Write what work returns, as JSON, and end without what a Python program does at its end: that is the parent's."""
    try:
        # If this process is stuck for ever, it must not hold the parent's locks and sockets with it.
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != sink:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        try:
            answer = work()
        except Exception:
            answer = {"traceback": traceback.format_exc()}
        with open(sink, "w", encoding="utf-8") as file:
            json.dump(answer, file)
    finally:
        os._exit(0)


def _read_until(source: int, deadline: float) -> bytes | None:
    """Everything until the other side closes, or None when the deadline comes first."""
    data = b""
    while True:
        if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        chunk = os.read(source, 65536)
        if not chunk:
            return data
        data += chunk


def _reaped(child: int, seconds: float) -> bool:
    """Whether the child has ended, within so many seconds."""
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True
