#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_logs
short_description: Print the logs of many hosts' instances, each line with its host in front
version_added: 0.1.0
description:
  - Prints the lines that M(gpufleet.llamacpp.llamacpp_instance_info) with C(log_lines) told of every host, as
    C(HOST PORT | line).
  - The playbook C(gpufleet.llamacpp.logs) uses it.
options:
  results:
    description:
      - By name of the host, what M(gpufleet.llamacpp.llamacpp_instance_info) returned there.
      - A result that failed, or of a host that could not be reached, becomes a line that says so.
    type: dict
    required: true
  output:
    description:
      - Folder on the controller to write the logs to, each as C(HOST-INSTANCE.log). It is made if it is not there.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details:
      - Prints, and writes to O(output), in check mode too.
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
- name: Read the logs
  gpufleet.llamacpp.llamacpp_instance_info:
    log_lines: 50
  register: found

- name: Print them
  gpufleet.llamacpp.instance_logs:
    results: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'found'))) }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines that were printed.
  type: list
  elements: str
  returned: success
  sample: ["gpu-a 4403 | 0.00.412.007 I srv  llama_server: model loaded"]
files:
  description: The files that were written.
  type: list
  elements: str
  returned: success
  sample: ["logs/gpu-a-4403-glm-4.7-flash-q4.log"]
"""
