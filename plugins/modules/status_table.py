#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: status_table
short_description: Print the instances of many hosts as one table
version_added: 0.1.0
description:
  - Prints what M(gpufleet.llamacpp.llamacpp_instance_info) told of every host, as a table that fits the terminal.
  - Below an instance stand its memory on the GPUs, what is wrong with it, and where what runs is not what is recorded.
  - The playbook C(gpufleet.llamacpp.status) uses it.
options:
  results:
    description:
      - By name of the host, what M(gpufleet.llamacpp.llamacpp_instance_info) returned there.
      - A result that failed, or of a host that could not be reached, becomes a line that says so.
    type: dict
    required: true
  output:
    description:
      - File on the controller to write the same to, as JSON.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details:
      - Prints, and writes O(output), in check mode too.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance_info
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Look at the instances
  gpufleet.llamacpp.llamacpp_instance_info:
  register: found

- name: Print them as one table
  gpufleet.llamacpp.status_table:
    results: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'found'))) }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines that were printed.
  type: list
  elements: str
  returned: success
  sample: ["HOST   INSTANCE               STATE", "gpu-a  4403-glm-4.7-flash-q4  running"]
hosts:
  description: By name of the host, its C(instances); or C(problem), in words why they are not known.
  type: dict
  returned: success
  sample:
    gpu-a:
      instances:
        - name: 4403-glm-4.7-flash-q4
          state: running
"""
