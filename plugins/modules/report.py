#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Print a report (used by this collection's playbooks)
version_added: 0.2.0
description:
  - Prints on the control node, as plain text, what earlier tasks found on all hosts.
  - The playbooks and roles of this collection use it. Its options may change in any release.
options:
  kind:
    description: The report to print.
    type: str
    required: true
    choices:
      logs: The last lines of the logs, as C(HOST PORT | line).
      memory: The GPU memory that each server to be started needs, and what remains.
      rollout: The state of each host of a rollout.
      status: All instances as one table that fits the terminal, with their GPU memory, problems and drift.
  hosts:
    description:
      - The data of the report, by name of the host.
      - For O(kind=logs) and O(kind=status), the registered result of M(gpufleet.llamacpp.llamacpp_instance_info), for
        O(kind=logs) with C(log_lines). A host with a failed result, and an unreachable host, has a line of its own.
      - For O(kind=memory), RV(gpufleet.llamacpp.llamacpp_plan#module:memory).
      - For O(kind=rollout), a mapping with C(state), C(instances) (names) and C(message) (why it failed). The state is
        V(deployed), V(unchanged), V(failed), V(lost), V(pending) or V(unreachable), which is the default.
    type: dict
    required: true
  output:
    description:
      - For O(kind=status), a file on the control node to write RV(hosts) to, as JSON.
      - For O(kind=logs), a folder on the control node to write the logs to, each as C(HOST-INSTANCE.log). A missing
        folder is created.
      - Not used by the other reports.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details:
      - Prints, and writes O(output), in check mode too.
      - In check mode the report O(kind=rollout) says what would happen.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance_info
  - module: gpufleet.llamacpp.llamacpp_plan
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Read the state of the instances
  gpufleet.llamacpp.llamacpp_instance_info:
  register: found

- name: Print the status
  gpufleet.llamacpp.report:
    kind: status
    hosts: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'found'))) }}"
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
  description: The C(instances) of each host, or the C(problem) why they are not known.
  type: dict
  returned: with O(kind=status)
  sample:
    gpu-a:
      instances:
        - name: 4403-glm-4.7-flash-q4
          state: running
files:
  description: The files that were written.
  type: list
  elements: str
  returned: with O(kind=logs)
  sample: ["logs/gpu-a-4403-glm-4.7-flash-q4.log"]
"""
