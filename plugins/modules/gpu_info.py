#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Gather information about NVIDIA GPUs
version_added: 0.1.0
description:
  - Queries NVIDIA's management library (NVML) for every GPU of the host. Returns its memory, the processes on it with
    owner and command, its compute mode, MIG and ECC state, the recovery action of its driver after an Xid error, and
    the links between the GPUs.
  - A GPU that is lost or does not answer is in the list with its own RV(gpus[].error). It does not hide the other GPUs.
  - On a host without NVIDIA GPUs the list is empty, and RV(reason) says why. Nothing of NVIDIA's is required.
  - If the driver does not work, or does not answer within a minute because a GPU hangs, the task fails with the cause
    and the remedy.
options:
  home:
    description:
      - Folder on the host that contains the instances. The Python environment in its C(venv) has the library that reads
        the GPUs.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for other users.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.info_module
  - gpufleet.llamacpp.attributes.actiongroup
requirements:
  - nvidia-ml-py on the host, if it has NVIDIA's driver
notes:
  - Asterisks replace everything in the command of a process that looks like a key, a token or a password.
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance
  - module: gpufleet.llamacpp.llamacpp_instance_info
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Gather information about the GPUs
  gpufleet.llamacpp.gpu_info:
  register: found

- name: Show the free memory of each GPU
  ansible.builtin.debug:
    msg: "GPU {{ item.index }} {{ item.name }}: {{ item.memory_free | human_readable }} free"
  loop: "{{ found.gpus }}"
  loop_control:
    label: "{{ item.uuid }}"

- name: Fail if a GPU is lost or needs a reset
  ansible.builtin.assert:
    that: broken | length == 0
    fail_msg: "{{ broken | join(' ') }}"
  vars:
    broken: "{{ found.gpus | map(attribute='error') | select | list }}"

- name: Show the processes on the GPUs
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
        - The GPU's index in the order of PCI addresses, from 0.
        - CUDA uses the same order with C(CUDA_DEVICE_ORDER=PCI_BUS_ID), but skips lost GPUs. RV(gpus[].uuid) is
          safer.
      returned: success
      type: int
      sample: 0
    uuid:
      description: The GPU's UUID, which reboots do not change. Empty if the GPU did not answer.
      returned: success
      type: str
      sample: GPU-0f5a1c00-fa4e-4e56-8d4c-000000000000
    pci_bus_id:
      description: The GPU's PCI address. Empty if the GPU did not answer.
      returned: success
      type: str
      sample: "00000000:1A:00.0"
    name:
      description: The product name. Empty if the GPU did not answer.
      returned: success
      type: str
      sample: NVIDIA H200 NVL
    memory_total:
      description:
        - Size of the GPU's memory in bytes, the sum of RV(gpus[].memory_reserved), RV(gpus[].memory_used) and
          RV(gpus[].memory_free).
        - All four are V(0) if the GPU did not answer.
      returned: success
      type: int
      sample: 150754820096
    memory_reserved:
      description: Bytes that the driver and the firmware reserve.
      returned: success
      type: int
      sample: 655360000
    memory_used:
      description: Bytes in use, by processes of any user.
      returned: success
      type: int
      sample: 4823449600
    memory_free:
      description: Bytes that a new process can use.
      returned: success
      type: int
      sample: 145276010496
    utilization:
      description: Percent of the last sample period in which the GPU computed. V(null) if the GPU does not report it.
      returned: success
      type: int
      sample: 97
    compute_mode:
      description:
        - How many processes the driver allows on the GPU, V(default) for any number, V(exclusive_process) for one,
          V(prohibited) for none.
        - V(null) if the GPU does not report it.
      returned: success
      type: str
      sample: default
    mig:
      description: Whether MIG is enabled. V(null) if the GPU has no MIG.
      returned: success
      type: bool
      sample: false
    ecc:
      description: Whether ECC is enabled. V(null) if the GPU has no ECC.
      returned: success
      type: bool
      sample: true
    ecc_corrected:
      description: Corrected memory errors since the driver was loaded. V(null) without ECC.
      returned: success
      type: int
      sample: 0
    ecc_uncorrected:
      description: Uncorrected memory errors since the driver was loaded. V(null) without ECC.
      returned: success
      type: int
      sample: 0
    remapped_rows:
      description: Memory rows that were remapped after errors. V(null) if the GPU does not report it.
      returned: success
      type: int
      sample: 0
    remapping_pending:
      description: Whether more rows will be remapped at the next reset. V(null) if the GPU does not report it.
      returned: success
      type: bool
      sample: false
    remapping_failed:
      description: Whether remapping failed and the GPU needs service. V(null) if the GPU does not report it.
      returned: success
      type: bool
      sample: false
    recovery_action:
      description:
        - What the driver recommends after an Xid error. V(none) on a healthy GPU, else V(gpu_reset),
          V(node_reboot), V(drain_p2p), V(drain_and_reset), or the number of an action that this module does not know.
        - V(null) if the driver does not report it.
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
          description: Bytes that it uses on this GPU. V(null) if the driver does not report it.
          returned: success
          type: int
          sample: 4823449600
        user:
          description: The user that it runs as. V(null) if this user cannot see the process.
          returned: success
          type: str
          sample: operator
        command:
          description:
            - Its command line, up to 200 characters. Asterisks replace secrets.
            - V(null) if this user cannot see the process.
          returned: success
          type: str
          sample: /opt/llama.cpp/build/bin/llama-server --port 4403
    error:
      description: Why the GPU does not answer, and what to do. V(null) if it answers.
      returned: success
      type: str
      sample: "GPU 2 is lost: it no longer answers on the PCI bus (NVML 15). Reboot the host; ..."
links:
  description: The connection of each pair of GPUs.
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
      description: Whether NVLink connects them. V(null) if the driver does not report it.
      returned: success
      type: bool
      sample: true
    p2p:
      description: Whether they can read each other's memory, over NVLink or PCIe. V(null) if it is not reported.
      returned: success
      type: bool
      sample: true
    path:
      description:
        - The nearest common point of their PCIe paths. One of V(same_board), V(pcie_switch), V(pcie_switches),
          V(host_bridge), V(numa_node) and V(system), from near to far.
        - V(null) if the driver does not report it.
      returned: success
      type: str
      sample: numa_node
driver_version:
  description: Version of NVIDIA's driver. V(null) without one.
  returned: success
  type: str
  sample: 590.48.01
cuda_version:
  description: The newest CUDA version that the driver supports. V(null) without a driver.
  returned: success
  type: str
  sample: "13.1"
reason:
  description: Why RV(gpus) is empty. V(null) if it is not.
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
