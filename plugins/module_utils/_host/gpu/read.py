# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs of the host as they are now: memory, processes, health and links.

Private to gpufleet.llamacpp; may change at any time.

nvml.py calls NVML, in a child process: a broken GPU can hang inside the driver, and only a process can be abandoned
there.
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

from ..._result import OperatorError, Problem
from . import errors, nvml

# Seconds. Without the persistence daemon the driver first wakes every GPU, which takes some seconds for each.
TIMEOUT = 60.0
NO_DRIVER = (errors.LIBRARY_NOT_FOUND, errors.DRIVER_NOT_LOADED)


class NvmlUnavailable(OperatorError):
    """No GPU could be read. ``code`` is NVML's error code, None if there is none."""

    def __init__(self, problem: Problem | str, code: int | None = None) -> None:
        super().__init__(problem)
        self.code = code

    @property
    def no_gpu(self) -> bool:
        """Whether the host has no NVIDIA GPU, and not one that does not work."""
        return self.code in NO_DRIVER and not errors.pci_gpus()


class PynvmlMissing(NvmlUnavailable):
    """The Python library nvidia-ml-py cannot be imported here."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that uses memory of a GPU. user and command are None if this user may not see the process."""

    pid: int
    memory: int | None  # bytes
    user: str | None
    command: str | None


@dataclass(frozen=True)
class Gpu:
    """One GPU. With an error, values that could not be read are empty, 0 or None.

    Optional values are None if the GPU or its driver does not know them.
    """

    index: int  # in PCI order, which is CUDA's with CUDA_DEVICE_ORDER=PCI_BUS_ID while no GPU is lost
    uuid: str = ""
    pci_bus_id: str = ""
    name: str = ""
    memory_total: int = 0  # bytes; total = reserved + used + free
    memory_reserved: int = 0  # bytes, by the driver
    memory_used: int = 0  # bytes
    memory_free: int = 0  # bytes
    utilization: int | None = None  # percent
    compute_mode: str | None = None  # default, exclusive_process, prohibited
    mig: bool | None = None
    ecc: bool | None = None
    ecc_corrected: int | None = None  # errors since the driver was loaded
    ecc_uncorrected: int | None = None
    remapped_rows: int | None = None  # of the memory, permanently replaced after errors
    remapping_pending: bool | None = None  # more will be replaced at the next reset
    remapping_failed: bool | None = None
    recovery_action: str | None = None  # what the driver recommends after an Xid error; "none" for a healthy GPU
    nvlinks: int | None = None  # number of active ones
    processes: tuple[GpuProcess, ...] = ()
    error: Problem | None = None


@dataclass(frozen=True)
class Link:
    """The connection between two GPUs."""

    gpus: tuple[int, int]  # their indexes
    nvlink: bool | None
    p2p: bool | None  # whether they can read each other's memory, over any path
    path: str | None  # the nearest common node of the PCI tree


@dataclass(frozen=True)
class NvmlReading:
    """Everything that NVML reported at one time. gpus are in PCI order."""

    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    driver_version: str | None
    cuda_version: str | None  # the newest CUDA that the driver supports


NOTHING = NvmlReading(gpus=(), links=(), driver_version=None, cuda_version=None)


def as_dict(reading: NvmlReading) -> dict[str, Any]:
    """The reading as plain data, for a module's result."""
    errors_as_text = [gpu.error and str(gpu.error) for gpu in reading.gpus]
    value = asdict(reading)
    value["gpus"] = [{**row, "error": text} for row, text in zip(value["gpus"], errors_as_text)]
    return value


def read_gpus(timeout: float = TIMEOUT) -> list[Gpu]:
    """The GPUs in PCI order. Raises NvmlUnavailable like read()."""
    return list(read(timeout).gpus)


def read_memory(timeout: float = TIMEOUT) -> list[Gpu]:
    """The GPUs in PCI order, only with memory and processes, which is fast. Raises NvmlUnavailable like read()."""
    return list(read(timeout, facts=False).gpus)


def read(timeout: float = TIMEOUT, facts: bool = True) -> NvmlReading:
    """Everything about the host's GPUs, within ``timeout`` seconds; without ``facts`` as read_memory() needs it.

    A lost or broken GPU is in the list with its error; it never hides the others. Raises NvmlUnavailable if nothing can
    be read at all, and PynvmlMissing if the driver's library is installed and nvidia-ml-py is not.
    """
    if not nvml.library_present():
        raise NvmlUnavailable(errors.of_driver(errors.LIBRARY_NOT_FOUND), errors.LIBRARY_NOT_FOUND)
    if nvml.pynvml is None:
        raise PynvmlMissing(
            Problem(
                "",
                f"The GPUs cannot be read: {sys.executable} does not have the Python library nvidia-ml-py (pynvml)",
                "The role gpufleet.llamacpp.llamacpp_host installs it into the host's environment.",
            )
        )
    answer = _in_child(lambda: nvml.query(facts), timeout)
    if "code" in answer:
        raise NvmlUnavailable(Problem(**answer["problem"]), int(answer["code"]))
    return _reading(answer)


def _reading(answer: Mapping[str, Any]) -> NvmlReading:
    return NvmlReading(
        gpus=tuple(map(_gpu, answer["gpus"])),
        links=tuple(Link(**{**link, "gpus": tuple(link["gpus"])}) for link in answer["links"]),
        driver_version=answer["driver_version"],
        cuda_version=answer["cuda_version"],
    )


def _gpu(row: Mapping[str, Any]) -> Gpu:
    processes = tuple(GpuProcess(**process) for process in row.get("processes", ()))
    return Gpu(**{**row, "processes": processes, "error": row["error"] and Problem(**row["error"])})


def _in_child(work: Callable[[], Mapping[str, Any]], timeout: float) -> dict[str, Any]:
    """The result of ``work()`` from a child process, which has ``timeout`` seconds.

    Raises NvmlUnavailable if the child takes longer or dies, and RuntimeError with its traceback if ``work`` raises.
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
            # A process that hangs inside the driver does not die of SIGKILL, so it is not waited for any longer.
            os.kill(child, signal.SIGKILL)
            _reaped(child, 2.0)
    if data is None:
        raise NvmlUnavailable(
            Problem(
                "",
                f"NVIDIA's driver did not answer within {timeout:g} s; a GPU probably hangs",
                f"{errors.KERNEL_LOG} Usually only a reboot of the host helps.",
            )
        )
    if not data:
        text = "The process that reads the GPUs died inside NVIDIA's library"
        raise NvmlUnavailable(Problem("", text, errors.KERNEL_LOG))
    answer: dict[str, Any] = json.loads(data)
    if "traceback" in answer:
        raise RuntimeError(answer["traceback"])
    return answer


def _child(work: Callable[[], Mapping[str, Any]], sink: int) -> None:
    """Write the result of ``work()`` as JSON, and end without Python's own cleanup, which belongs to the parent."""
    try:
        # If this process hangs forever, it must not keep the parent's locks and sockets open.
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
    """Everything until the other side closes; None if the deadline comes first."""
    data = b""
    while True:
        if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        chunk = os.read(source, 65536)
        if not chunk:
            return data
        data += chunk


def _reaped(child: int, seconds: float) -> bool:
    """Whether the child ends within ``seconds``."""
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True
