# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NVML reports through nvidia-ml-py, as plain data.

Private to gpufleet.llamacpp; may change at any time. Calls and codes: nvml.h. A call may hang in the driver, so read.py
makes them in a child process.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .. import process
from . import errors

__all__ = ["pynvml"]  # read.py asks whether it is there

try:
    import pynvml
except ImportError:
    pynvml = None

INSUFFICIENT_SIZE = 7

# Errors that mean that this GPU or driver does not know the value, and not that the GPU is broken: invalid argument,
# not supported, no permission, function not found, argument version mismatch, deprecated.
NOT_KNOWN = (2, 3, 4, 13, 25, 26)

COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
PATHS = {0: "same_board", 10: "pcie_switch", 20: "pcie_switches", 30: "host_bridge", 40: "numa_node", 50: "system"}
RECOVERY_ACTIONS = {0: "none", 1: "gpu_reset", 2: "node_reboot", 3: "drain_p2p", 4: "drain_and_reset"}
RECOVERY_ACTION_FIELD = 230
P2P_READ, P2P_NVLINK = 0, 2  # as numbers: pynvml 13.615's NVML_P2P_CAPS_INDEX_READ is a tuple by mistake


def library_present() -> bool:
    """Whether the driver's library can be loaded. It is not initialized: for root, that could create device nodes."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def query(facts: bool = True) -> dict[str, Any]:
    """driver_version, cuda_version, gpus and links; or code and problem if NVML cannot be initialized.

    Without ``facts``, each GPU has only its identity, memory and processes, which is a sixth of the calls. NVML is not
    shut down, because the process that calls this ends next.
    """
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        problem = errors.of_driver(error.value, str(error), _library_version())
        return {"code": error.value, "problem": asdict(problem)}
    handles: dict[int, Any] = {}
    gpus = [_gpu(index, handles, facts) for index in range(count)]
    # NVML guarantees no order. A lost GPU has no address to sort by; then NVML's order, in practice the same, stays.
    if all("pci_bus_id" in gpu for gpu in gpus):
        gpus.sort(key=lambda gpu: gpu["pci_bus_id"])
    by_place = [(place, handles.get(gpu["index"])) for place, gpu in enumerate(gpus)]
    for place, gpu in enumerate(gpus):
        gpu["index"] = place
        failure = gpu.pop("failure", None)
        gpu["error"] = failure and asdict(errors.of_gpu(failure.value, str(failure), place))
    pairs = itertools.combinations(by_place, 2) if facts else ()
    links = [_link(one, other) for one, other in pairs if one[1] and other[1]]
    cuda = _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return {
        "driver_version": _optional(pynvml.nvmlSystemGetDriverVersion),
        "cuda_version": cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
        "gpus": gpus,
        "links": links,
    }


def _gpu(index: int, handles: dict[int, Any], facts: bool) -> dict[str, Any]:
    """One GPU, as far as it can be read. Adds its handle to ``handles``, or the key failure to the result."""
    gpu: dict[str, Any] = {"index": index}
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        gpu["uuid"] = pynvml.nvmlDeviceGetUUID(handle)
        gpu["pci_bus_id"] = _text(pynvml.nvmlDeviceGetPciInfo(handle).busId)
        gpu["name"] = pynvml.nvmlDeviceGetName(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        gpu.update({f"memory_{part}": getattr(memory, part) for part in ("total", "reserved", "used", "free")})
        gpu["processes"] = [_process(found) for found in _optional(_processes, handle) or []]
        if facts:
            gpu.update(_facts(handle))
    except pynvml.NVMLError as error:
        gpu["failure"] = error
    else:
        handles[index] = handle
    return gpu


def _facts(handle: Any) -> dict[str, Any]:
    """All other values of one GPU. Raises NVMLError if it is broken."""
    mode = _optional(pynvml.nvmlDeviceGetComputeMode, handle)
    facts: dict[str, Any] = {"compute_mode": None if mode is None else COMPUTE_MODES.get(mode, str(mode))}
    for key, ask in (("mig", pynvml.nvmlDeviceGetMigMode), ("ecc", pynvml.nvmlDeviceGetEccMode)):
        state = _optional(ask, handle)
        facts[key] = None if state is None else bool(state[0])
    volatile = pynvml.NVML_VOLATILE_ECC
    facts["ecc_corrected"] = _optional(pynvml.nvmlDeviceGetTotalEccErrors, handle, 0, volatile)
    facts["ecc_uncorrected"] = _optional(pynvml.nvmlDeviceGetTotalEccErrors, handle, 1, volatile)
    rows = _optional(pynvml.nvmlDeviceGetRemappedRows, handle)
    facts["remapped_rows"] = None if rows is None else rows[0] + rows[1]
    facts["remapping_pending"] = None if rows is None else bool(rows[2])
    facts["remapping_failed"] = None if rows is None else bool(rows[3])
    rates = _optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    facts["utilization"] = None if rates is None else rates.gpu
    facts["recovery_action"] = _recovery_action(handle)
    facts["nvlinks"] = _nvlinks(handle)
    return facts


def _link(one: tuple[int, Any], other: tuple[int, Any]) -> dict[str, Any]:
    """The connection between two GPUs, each given as index and handle."""

    def p2p(capability: int) -> bool | None:
        status = _unless_error(pynvml.nvmlDeviceGetP2PStatus, one[1], other[1], capability)
        return None if status is None else status == pynvml.NVML_P2P_STATUS_OK

    level = _unless_error(pynvml.nvmlDeviceGetTopologyCommonAncestor, one[1], other[1])
    return {
        "gpus": [one[0], other[0]],
        "nvlink": p2p(P2P_NVLINK),
        "p2p": p2p(P2P_READ),
        "path": None if level is None else PATHS.get(level, str(level)),
    }


def _nvlinks(handle: Any) -> int | None:
    """The number of active NVLinks; None if the GPU has no NVLink."""
    active = None
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = _optional(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        if state is None:
            break
        active = (active or 0) + state
    return active


def _recovery_action(handle: Any) -> str | None:
    values = _optional(pynvml.nvmlDeviceGetFieldValues, handle, [RECOVERY_ACTION_FIELD])
    if values is None or values[0].nvmlReturn != 0:
        return None
    action = values[0].value.uiVal
    return RECOVERY_ACTIONS.get(action, str(action))


def _processes(handle: Any) -> list[Any]:
    """The GPU's processes. Retries if processes start between NVML's two calls, and the list becomes too short."""
    for attempt in range(3):
        try:
            return list(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
        except pynvml.NVMLError as error:
            if error.value != INSUFFICIENT_SIZE or attempt == 2:
                raise
    return []


def _process(found: Any) -> dict[str, Any]:
    """One process, with secrets in its command masked, because module results are logged."""
    command = process.shown_command(found.pid, 200)
    return {
        "pid": found.pid,
        "memory": found.usedGpuMemory,
        "user": process.owner(found.pid),
        "command": command or None,
    }


def _optional(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None if this GPU or driver does not know it."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if error.value in NOT_KNOWN:
            return None
        raise


def _unless_error(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None for any error: an error between two GPUs must not hide either of them."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _library_version() -> str | None:
    # Works without a driver. NVML's version is CUDA's major version, then the driver's version.
    version: str | None = _unless_error(pynvml.nvmlSystemGetNVMLVersion)
    return version and version.partition(".")[2]
