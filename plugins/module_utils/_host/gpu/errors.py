# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML's error codes as problems of the driver or of one GPU, each with its remedy.

Private to gpufleet.llamacpp; may change at any time. Codes: nvml.h.
"""

from __future__ import annotations

import contextlib
import glob
import os

from ..._result import Problem
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

KERNEL_LOG = "The kernel's log says more: `dmesg | grep -iE 'xid|nvrm'`."

# By NVML's code: why NVML does not work on this host, and what to do.
DRIVER = {
    LIBRARY_NOT_FOUND: (
        "This host has no NVIDIA driver (no libnvidia-ml.so.1), and {bus}",
        "To use GPUs, install NVIDIA's driver.",
    ),
    DRIVER_NOT_LOADED: (
        "NVIDIA's library is installed, but its kernel driver is not loaded, and {bus}",
        "To use GPUs, load it (`modprobe nvidia` as root). After a kernel update it may have to be built again. {log}",
    ),
    VERSION_MISMATCH: (
        "NVIDIA's kernel driver ({kernel}) and library ({library}) do not match: the driver was updated while the old "
        "one was loaded",
        "Reboot the host, or stop everything that uses a GPU and reload the nvidia kernel modules. A retry is useless.",
    ),
    NO_PERMISSION: (
        "User {user} may not use the GPUs (NVML 4)",
        "Look at `ls -l /dev/nvidia*`: the user needs read and write access, usually through a group such as video or "
        "render.",
    ),
    OPERATING_SYSTEM: (
        "The operating system blocks access to the GPUs (NVML 17), usually by a device rule of this service or "
        "container (PrivateDevices=, DevicePolicy=)",
        "Allow /dev/nvidia* there.",
    ),
    UNKNOWN: (
        'NVIDIA\'s driver answers "unknown error" (NVML 999)',
        "The device nodes may be missing (`nvidia-modprobe -c 0 -u` as root creates them), or a GPU has failed. {log} "
        "If nothing helps, reboot the host.",
    ),
}
OTHER_DRIVER = ("NVIDIA's driver does not answer: {name} (NVML {code})", "{log}")

# By NVML's code: why one GPU does not answer, and what to do.
GPU = {
    GPU_IS_LOST: (
        "GPU {index} is lost: it no longer answers on the PCI bus (NVML 15)",
        "Reboot the host; if it is lost again, check its power, cooling and seat. Until then name the other GPUs by "
        "UUID. {log}",
    ),
    RESET_REQUIRED: (
        "GPU {index} needs a reset (NVML 16)",
        "Stop what uses it, then run `nvidia-smi --gpu-reset -i {index}` as root, or reboot the host. {log}",
    ),
    NO_PERMISSION: (
        "User {user} may not use GPU {index} (NVML 4)",
        "Look at `ls -l /dev/nvidia*`: the user needs read and write access.",
    ),
    FUNCTION_NOT_FOUND: (
        "The driver is too old to report the memory of GPU {index} (NVML 13)",
        "Install driver 510 or newer.",
    ),
}
OTHER_GPU = ("GPU {index} does not answer: {name} (NVML {code})", "{log} If it stays so, reboot the host.")


def pci_gpus(devices: str = "/sys/bus/pci/devices") -> int:
    """The number of NVIDIA GPUs on the PCI bus, with or without a driver."""
    found = 0
    for folder in glob.glob(f"{devices}/*"):
        with contextlib.suppress(OSError):
            # 10de is NVIDIA; class 03 is a display controller, and data center GPUs are 0302.
            found += _line(f"{folder}/vendor") == "0x10de" and _line(f"{folder}/class").startswith("0x03")
    return found


def of_driver(code: int, name: str = "", library_version: str | None = None) -> Problem:
    """Why NVML does not work on this host. ``name`` is NVML's own name for the code."""
    library = library_version or "version unknown"
    return _problem(
        DRIVER.get(code, OTHER_DRIVER),
        code=code,
        name=name,
        library=library,
        kernel=_kernel_version(),
        bus=_on_the_bus(),
    )


def of_gpu(code: int, name: str, index: int) -> Problem:
    """Why this one GPU does not answer. ``name`` is NVML's own name for the code."""
    return _problem(GPU.get(code, OTHER_GPU), code=code, name=name, index=index)


def _problem(templates: tuple[str, str], **values: object) -> Problem:
    values.update(user=process.user_name(os.geteuid()), log=KERNEL_LOG)
    text, remedy = (template.format(**values) for template in templates)
    return Problem("", text, remedy)


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
