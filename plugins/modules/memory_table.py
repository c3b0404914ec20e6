#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_table
short_description: Print what the servers that are to be started take of the GPUs
version_added: 0.1.0
description:
  - Prints for each host, in GiB on each GPU, what each server takes, what is free now, and what is left then.
  - The role C(gpufleet.llamacpp.llamacpp) uses it in check mode.
options:
  hosts:
    description:
      - By name of the host, RV(gpufleet.llamacpp.llamacpp_plan#module:memory).
    type: dict
    required: true
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: See what there is to do
  gpufleet.llamacpp.llamacpp_plan:
    instances: "{{ llamacpp_instances }}"
  register: todo

- name: Tell what it takes
  gpufleet.llamacpp.memory_table:
    hosts: "{{ {inventory_hostname: todo.memory} }}"
"""

RETURN = r"""
lines:
  description: The lines that were printed.
  type: list
  elements: str
  returned: success
  sample: ["  4403-glm-4.7-flash-q4    6.1    6.1    6.1    6.1"]
"""
