#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Show the NVIDIA GPUs of a host and who uses them
version_added: 0.1.0
description:
  - Asks NVIDIA's management library (NVML) about every GPU of the host, how much of its memory is in use, the processes
    on it with their owner and command, its compute mode, MIG and ECC state, what its driver wants done after an Xid
    error, and how the GPUs are linked.
  - A GPU that is lost or does not answer is in the list with its own RV(gpus[].error). It does not hide the other GPUs.
  - On a host without NVIDIA GPUs the list is empty, RV(reason) says why, and nothing of NVIDIA's is needed.
  - A driver that is there but does not work fails the task, with the cause and the remedy. So does a driver that does
    not answer within a minute, as happens when a GPU hangs.
options:
  home:
    description:
      - Where instances live on this host. The Python environment in C(venv) there has the library that reads the GPUs.
      - The default is V(/opt/llamacpp) for root, and V(~/llamacpp) for another user.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.info_module
  - gpufleet.llamacpp.attributes.actiongroup
requirements:
  - nvidia-ml-py (on the host; only where NVIDIA's driver is)
notes:
  - What looks like a key, token or password in a process' command is replaced by asterisks.
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance
  - module: gpufleet.llamacpp.llamacpp_instance_info
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Look at the GPUs
  gpufleet.llamacpp.gpu_info:
  register: found

- name: Show how much memory is free on each
  ansible.builtin.debug:
    msg: "GPU {{ item.index }} {{ item.name }}: {{ item.memory_free | human_readable }} free"
  loop: "{{ found.gpus }}"
  loop_control:
    label: "{{ item.uuid }}"

- name: Stop here when a GPU is lost or needs a reset
  ansible.builtin.assert:
    that: broken | length == 0
    fail_msg: "{{ broken | join(' ') }}"
  vars:
    broken: "{{ found.gpus | map(attribute='error') | select | list }}"

- name: Show who uses the GPUs
  ansible.builtin.debug:
    msg: "GPU {{ item.0.index }}: pid {{ item.1.pid }} of {{ item.1.user }}: {{ item.1.command }}"
  loop: "{{ found.gpus | subelements('processes') }}"
  loop_control:
    label: "{{ item.1.pid }}"
"""

RETURN = r"""
gpus:
  description: The GPUs, in the order of their PCI addresses.
  returned: success
  type: list
  elements: dict
  contains:
    index:
      description:
        - The GPU's place in the order of PCI addresses, from 0.
        - CUDA counts the same way with C(CUDA_DEVICE_ORDER=PCI_BUS_ID), but leaves lost GPUs out. RV(gpus[].uuid) is
          safer.
      returned: success
      type: int
      sample: 0
    uuid:
      description: The GPU's UUID, which stays the same over reboots. Empty where the GPU did not answer.
      returned: success
      type: str
      sample: GPU-0f5a1c00-fa4e-4e56-8d4c-000000000000
    pci_bus_id:
      description: The GPU's PCI address. Empty where the GPU did not answer.
      returned: success
      type: str
      sample: "00000000:1A:00.0"
    name:
      description: The product's name. Empty where the GPU did not answer.
      returned: success
      type: str
      sample: NVIDIA H200 NVL
    memory_total:
      description:
        - Size of the GPU's memory in bytes, the sum of RV(gpus[].memory_reserved), RV(gpus[].memory_used) and
          RV(gpus[].memory_free).
        - All four are V(0) where the GPU did not answer.
      returned: success
      type: int
      sample: 150754820096
    memory_reserved:
      description: Bytes that the driver and the firmware keep for themselves.
      returned: success
      type: int
      sample: 655360000
    memory_used:
      description: Bytes in use, by processes of any user.
      returned: success
      type: int
      sample: 4823449600
    memory_free:
      description: Bytes that a new process can have.
      returned: success
      type: int
      sample: 145276010496
    utilization:
      description: Percent of the last moment in which the GPU computed. V(null) where the GPU cannot tell.
      returned: success
      type: int
      sample: 97
    compute_mode:
      description:
        - How many processes the driver lets onto the GPU, V(default) for any number, V(exclusive_process) for one,
          V(prohibited) for none.
        - V(null) where the GPU cannot tell.
      returned: success
      type: str
      sample: default
    mig:
      description: Whether the GPU is split into MIG instances. V(null) where it has no MIG.
      returned: success
      type: bool
      sample: false
    ecc:
      description: Whether the memory corrects its errors. V(null) where it cannot.
      returned: success
      type: bool
      sample: true
    ecc_corrected:
      description: Memory errors since the driver was loaded that were corrected. V(null) without ECC.
      returned: success
      type: int
      sample: 0
    ecc_uncorrected:
      description: Memory errors since the driver was loaded that could not be corrected. V(null) without ECC.
      returned: success
      type: int
      sample: 0
    remapped_rows:
      description: Rows of the memory that were replaced for good after errors. V(null) where the GPU cannot tell.
      returned: success
      type: int
      sample: 0
    remapping_pending:
      description: Whether more rows wait for the next reset of the GPU to be replaced. V(null) where it cannot tell.
      returned: success
      type: bool
      sample: false
    remapping_failed:
      description: Whether a row could not be replaced, so that the GPU needs service. V(null) where it cannot tell.
      returned: success
      type: bool
      sample: false
    recovery_action:
      description:
        - What the driver asks for after an error that it logged as an Xid. V(none) on a healthy GPU, else V(gpu_reset),
          V(node_reboot), V(drain_p2p), V(drain_and_reset), or the number of an action that is newer than this module.
        - V(null) where the driver cannot tell.
      returned: success
      type: str
      sample: none
    nvlinks:
      description: How many NVLinks of the GPU are active. V(null) on a GPU without NVLink.
      returned: success
      type: int
      sample: 18
    processes:
      description: The processes that compute on the GPU.
      returned: success
      type: list
      elements: dict
      contains:
        pid:
          description: The process ID on the host.
          returned: success
          type: int
          sample: 4242
        memory:
          description: Bytes that it holds on this GPU. V(null) where the driver does not tell.
          returned: success
          type: int
          sample: 4823449600
        user:
          description: Who it runs as. V(null) where this user may not see the process.
          returned: success
          type: str
          sample: operator
        command:
          description:
            - Its command line, up to 200 characters, secrets replaced by asterisks.
            - V(null) where this user may not see the process.
          returned: success
          type: str
          sample: /opt/llama.cpp/build/bin/llama-server --port 4403
    error:
      description: Why the GPU does not answer and what to do. V(null) on a GPU that does.
      returned: success
      type: str
      sample: "GPU 2 is lost: it no longer answers on the PCI bus (NVML 15). Reboot the host; ..."
links:
  description: How each two GPUs that answer reach each other.
  returned: success
  type: list
  elements: dict
  contains:
    gpus:
      description: The RV(gpus[].index) of both.
      returned: success
      type: list
      elements: int
      sample: [0, 1]
    nvlink:
      description: Whether NVLink joins them. V(null) where the driver cannot tell.
      returned: success
      type: bool
      sample: true
    p2p:
      description: Whether they can read each other's memory, over NVLink or PCIe. V(null) where the driver cannot tell.
      returned: success
      type: bool
      sample: true
    path:
      description:
        - The nearest place where their PCIe paths meet. One of V(same_board), V(pcie_switch), V(pcie_switches),
          V(host_bridge), V(numa_node) and V(system), from near to far.
        - V(null) where the driver cannot tell.
      returned: success
      type: str
      sample: numa_node
driver_version:
  description: Version of NVIDIA's driver. V(null) without one.
  returned: success
  type: str
  sample: 590.48.01
cuda_version:
  description: The newest CUDA that the driver runs. V(null) without a driver.
  returned: success
  type: str
  sample: "13.1"
reason:
  description: Why RV(gpus) is empty. V(null) where it is not.
  returned: success
  type: str
  sample: "This host has no NVIDIA driver (no libnvidia-ml.so.1), and no NVIDIA GPU is on its PCI bus. ..."
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._host.gpu import read as gpu
from ..module_utils._host.layout import default_home
from ..module_utils._host.python import ensure_library


def main() -> None:
    module = AnsibleModule(argument_spec={"home": {"type": "path"}}, supports_check_mode=True)
    try:
        reading, reason = gpu.read(), None
    except gpu.PynvmlMissing:
        # Starts this module again where the library is, or fails.
        ensure_library(module, "nvidia-ml-py", module.params["home"] or default_home())
        raise
    except gpu.NvmlUnavailable as error:
        if not error.no_gpu:
            module.fail_json(msg=str(error))
        reading, reason = gpu.NOTHING, str(error)
    if not reading.gpus and not reason:
        reason = f"NVIDIA's driver {reading.driver_version} is loaded on this host but finds no GPU."
    module.exit_json(changed=False, reason=reason, **gpu.as_dict(reading))


if __name__ == "__main__":
    main()
