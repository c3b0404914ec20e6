# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML's errors in words: what is wrong with the driver or with one GPU, and what to do.

Private to gpufleet.llamacpp; may change at any time. Codes: nvml.h.
"""

from __future__ import annotations

import contextlib
import glob
import os

from .. import process

NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
OPERATING_SYSTEM = 17
VERSION_MISMATCH = 18
UNKNOWN = 999

KERNEL_LOG = "The kernel's messages say more: `dmesg | grep -iE 'xid|nvrm'`."


def pci_gpus(devices: str = "/sys/bus/pci/devices") -> int:
    """How many GPUs of NVIDIA's are on the PCI bus, with or without a driver."""
    found = 0
    for folder in glob.glob(f"{devices}/*"):
        with contextlib.suppress(OSError):
            # 10de is NVIDIA; class 03 is a display controller, and data-centre GPUs are 0302.
            found += _line(f"{folder}/vendor") == "0x10de" and _line(f"{folder}/class").startswith("0x03")
    return found


def of_nvml(code: int, name: str = "", library_version: str | None = None) -> str:
    """Why NVML as a whole does not work on this host; name is NVML's own for the code."""
    if code == LIBRARY_NOT_FOUND:
        return (
            f"This host has no NVIDIA driver (no libnvidia-ml.so.1), and {_on_the_bus()}. "
            "To use GPUs, install NVIDIA's driver."
        )
    if code == DRIVER_NOT_LOADED:
        return (
            f"NVIDIA's library is installed, but its kernel driver is not loaded, and {_on_the_bus()}. To use GPUs, "
            "load it (`modprobe nvidia` as root); after a kernel update it may have to be built again. " + KERNEL_LOG
        )
    if code == VERSION_MISMATCH:
        return (
            f"NVIDIA's kernel driver ({_kernel_version()}) and library ({library_version or 'version unknown'}) do not "
            "match: the driver was updated while the old one was loaded. Reboot the host, or stop everything that uses "
            "a GPU and reload the nvidia kernel modules. Trying again does not help."
        )
    if code == NO_PERMISSION:
        return (
            f"User {process.user_name(os.geteuid())} may not use the GPUs (NVML 4). Look at `ls -l /dev/nvidia*`: the "
            "user needs to read and write there, usually by a group such as video or render."
        )
    if code == OPERATING_SYSTEM:
        return (
            "The operating system blocks access to the GPUs (NVML 17), usually by a device rule of the service or "
            "container that this runs in (PrivateDevices=, DevicePolicy=). Allow /dev/nvidia* there."
        )
    if code == UNKNOWN:
        return (
            'NVIDIA\'s driver answers "unknown error" (NVML 999). The device nodes may be missing '
            "(`nvidia-modprobe -c 0 -u` as root makes them), or a GPU has failed. "
            f"{KERNEL_LOG} If nothing helps, reboot the host."
        )
    return f"NVIDIA's driver cannot be asked: {name} (NVML {code}). {KERNEL_LOG}"


def of_gpu(code: int, name: str, index: int) -> str:
    """Why this one GPU does not answer; name is NVML's own for the code."""
    if code == GPU_IS_LOST:
        return (
            f"GPU {index} is lost: it does not answer on the PCI bus any more (NVML 15). Reboot the host; if it is "
            f"lost again, check its power, cooling and seat. Until then name the other GPUs by UUID. {KERNEL_LOG}"
        )
    if code == RESET_REQUIRED:
        return (
            f"GPU {index} needs a reset (NVML 16). Stop what uses it, then run `nvidia-smi --gpu-reset -i {index}` as "
            f"root, or reboot the host. {KERNEL_LOG}"
        )
    if code == NO_PERMISSION:
        user = process.user_name(os.geteuid())
        return (
            f"User {user} may not use GPU {index} (NVML 4). Look at `ls -l /dev/nvidia*`: who may read and write there?"
        )
    if code == FUNCTION_NOT_FOUND:
        return f"The driver is too old to tell the memory of GPU {index} (NVML 13): 510 or newer is needed."
    return f"GPU {index} does not answer: {name} (NVML {code}). {KERNEL_LOG} If it stays so, reboot the host."


def _on_the_bus() -> str:
    count = pci_gpus()
    if not count:
        return "no NVIDIA GPU is on its PCI bus"
    return f"{count} NVIDIA GPU{'s are' if count > 1 else ' is'} on its PCI bus"


def _kernel_version() -> str:
    with contextlib.suppress(OSError):
        return _line("/sys/module/nvidia/version")
    return "version unknown"


def _line(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()
