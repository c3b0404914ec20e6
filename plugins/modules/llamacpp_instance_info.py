#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llamacpp_instance_info
short_description: Gather information about llama-server instances
version_added: 0.1.0
description:
  - Reads the records that M(gpufleet.llamacpp.llamacpp_instance) keeps on the host, queries the manager and
    C(/health), and compares the record with what runs.
  - Changes nothing. The server gets no request that costs computing time.
options:
  name:
    description:
      - Return only this instance, by name or port. By default, return all instances of the host.
    type: str
  log_lines:
    description:
      - How many of the last lines of each log to return.
      - With V(systemd) they come from the journal, which only root and members of C(systemd-journal) can read.
    type: int
    default: 0
  home:
    description:
      - Folder on the host that contains the instances.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for other users.
    type: path
requirements:
  - nvidia-ml-py on the host, in C(<home>/venv) or in the Python that runs the module; only for the memory on the GPUs
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
  - gpufleet.llamacpp.attributes.info_module
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance
  - module: gpufleet.llamacpp.gpu_info
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Gather information about all instances
  gpufleet.llamacpp.llamacpp_instance_info:
  register: llamacpp

- name: Check that every instance runs as recorded
  ansible.builtin.assert:
    that:
      - item.state == 'running'
      - item.drift == []
  loop: "{{ llamacpp.instances }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
instances:
  description: The instances, sorted by name. If O(name) matches none, the one element has only name and state.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name of the instance.
      type: str
      returned: always
      sample: 4403-glm-4.7-flash-q4
    state:
      description: >-
        V(running), V(starting) (its manager started it, and it is not ready), V(stopped), V(failed), V(absent), or
        V(broken) if the record on the host cannot be read.
      type: str
      returned: always
      sample: running
    problem:
      description: What is wrong with the record.
      type: str
      returned: if state is broken
    enabled:
      description: Whether it starts at boot.
      type: bool
      returned: if the instance exists
    manager:
      description: What keeps it running, V(systemd), V(systemd_user) or V(supervisor).
      type: str
      returned: if the instance exists
      sample: supervisor
    folder:
      description: Its folder on the host.
      type: str
      returned: if the instance exists
      sample: /home/operator/llamacpp/4403-glm-4.7-flash-q4
    pid:
      description: Process ID of llama-server. Null if it does not run.
      type: int
      returned: if the instance exists
      sample: 4711
    uptime:
      description: Seconds since llama-server started. Null if it does not run.
      type: int
      returned: if the instance exists
      sample: 86400
    health:
      description: V(ok), V(loading), V(unreachable) or another answer of C(/health). Null if it does not run.
      type: str
      returned: if the instance exists
      sample: ok
    url:
      description: Its address on the host itself.
      type: str
      returned: if the instance exists
      sample: http://127.0.0.1:4403
    host:
      description: Address that it listens on.
      type: str
      returned: if the instance exists
      sample: 0.0.0.0
    port:
      description: Port that it listens on.
      type: int
      returned: if the instance exists
      sample: 4403
    alias:
      description: Name of the model in the API, or null.
      type: str
      returned: if the instance exists
    model:
      description: The model's path, size (bytes), sha256, name, architecture, quantization, parameters, context_length.
      type: dict
      returned: if the instance exists
    image:
      description: >-
        The image's path and sha256, and the path of llama-server in it (server_path). Also its build and
        options_digest if they were read when it was pulled, its source, and the digest of its manifest if it came from
        a registry.
      type: dict
      returned: if the instance exists
    context_size:
      description: The requested size of the context in tokens, or null.
      type: int
      returned: if the instance exists
    gpus:
      description: The GPUs of the instance.
      type: list
      elements: str
      returned: if the instance exists
    gpu_memory:
      description: Its memory on each GPU according to NVML, as index, uuid, memory and total (bytes).
      type: list
      elements: dict
      returned: if the instance exists
    argv:
      description: The whole command, with the container.
      type: list
      elements: str
      returned: if the instance exists
    launch:
      description: ID of what is recorded to run. It changes with everything that needs a restart.
      type: str
      returned: if the instance exists
      sample: 3f9ac2d1b7e0
    release:
      description: >-
        What passed the gate last, as launch, proven (time, UTC), ready_seconds, and the first completion with its rate.
      type: dict
      returned: if the instance exists
    log:
      description: The last lines of its log, oldest first. Empty if there is no log or this user cannot read it.
      type: list
      elements: str
      returned: if O(log_lines) is not 0
    drift:
      description: The differences between what runs and what is recorded, a sentence each.
      type: list
      elements: str
      returned: if the instance exists
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._instance.module import run_info_module


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "log_lines": {"type": "int", "default": 0},
            "home": {"type": "path"},
        },
        supports_check_mode=True,
    )
    run_info_module(module)


if __name__ == "__main__":
    main()
