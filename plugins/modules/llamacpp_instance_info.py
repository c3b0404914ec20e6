#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llamacpp_instance_info
short_description: Tell what llama-server instances a host has, and how they are
version_added: 0.1.0
description:
  - Reads the records that M(gpufleet.llamacpp.llamacpp_instance) left on the host, asks the manager and C(/health), and
    compares what is recorded with what runs.
  - Changes nothing and sends the server no request that costs it anything.
options:
  name:
    description:
      - Only this instance, by its name or by its port. By default all of the host's.
    type: str
  log_lines:
    description:
      - How many of the last lines of each log to return.
      - Under V(systemd) they come from the journal, which only root and the members of C(systemd-journal) may read.
    type: int
    default: 0
  home:
    description:
      - Folder on the host that holds the instances.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for any other user.
    type: path
requirements:
  - nvidia-ml-py, on the host, in C(<home>/venv) or in the Python that runs the module; only for the memory on the GPUs
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
- name: What runs here
  gpufleet.llamacpp.llamacpp_instance_info:
  register: llamacpp

- name: Every instance has to be in order
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
  description: The instances, sorted by name. One that is asked for by O(name) and is not there has only name and state.
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
        V(running), V(starting) (its manager has it started, it is not ready), V(stopped), V(failed), V(absent), or
        V(broken) where the record on the host cannot be understood.
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
      returned: if it is there
    manager:
      description: What keeps it running, V(systemd), V(systemd_user) or V(supervisor).
      type: str
      returned: if it is there
      sample: supervisor
    folder:
      description: Its folder on the host.
      type: str
      returned: if it is there
      sample: /home/operator/llamacpp/4403-glm-4.7-flash-q4
    pid:
      description: Process number of llama-server, null where it does not run.
      type: int
      returned: if it is there
      sample: 4711
    uptime:
      description: Seconds since llama-server was started, null where it does not run.
      type: int
      returned: if it is there
      sample: 86400
    health:
      description: V(ok), V(loading), V(unreachable) or another answer of C(/health); null where it does not run.
      type: str
      returned: if it is there
      sample: ok
    url:
      description: Where the host itself reaches it.
      type: str
      returned: if it is there
      sample: http://127.0.0.1:4403
    host:
      description: Address that it listens on.
      type: str
      returned: if it is there
      sample: 0.0.0.0
    port:
      description: Port that it listens on.
      type: int
      returned: if it is there
      sample: 4403
    alias:
      description: Name of the model in the API, or null.
      type: str
      returned: if it is there
    model:
      description: The model's path, size (bytes), sha256, name, architecture, quantization, parameters, context_length.
      type: dict
      returned: if it is there
    image:
      description: >-
        The image's path and sha256, and where llama-server lies in it (server_path). Its build and options_digest,
        where that was learned when it was pulled. Its source, and in a registry the digest of its manifest.
      type: dict
      returned: if it is there
    context_size:
      description: Size of the context that was asked for, in tokens, or null.
      type: int
      returned: if it is there
    gpus:
      description: The GPUs that it was given.
      type: list
      elements: str
      returned: if it is there
    gpu_memory:
      description: What it holds on each GPU by NVML's account, as index, uuid, memory and total (bytes).
      type: list
      elements: dict
      returned: if it is there
    argv:
      description: The whole command, container and all.
      type: list
      elements: str
      returned: if it is there
    launch:
      description: Number of what is recorded to run. It changes with everything that a running server would notice.
      type: str
      returned: if it is there
      sample: 3f9ac2d1b7e0
    release:
      description: >-
        What was last proven, as launch, proven (time, UTC), ready_seconds, and the first completion with its rate.
      type: dict
      returned: if it is there
    log:
      description: The last lines of its log, oldest first; none where there is no log that may be read.
      type: list
      elements: str
      returned: if O(log_lines) is not 0
    drift:
      description: Where what runs is not what is recorded, a sentence each.
      type: list
      elements: str
      returned: if it is there
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
