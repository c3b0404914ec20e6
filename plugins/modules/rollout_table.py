#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_table
short_description: Print where each host of a rollout is
version_added: 0.1.0
description:
  - Prints for each host whether it was deployed, had nothing to do, failed, was lost on the way, or was not reached.
  - The role C(gpufleet.llamacpp.llamacpp) uses it, and keeps the account that it prints.
options:
  hosts:
    description:
      - By name of the host, C(state), the names of its C(instances), and what was C(said) where it failed. The state is
        V(deployed), V(unchanged), V(failed), V(lost), V(to do) or V(unreachable); without one it is the last.
    type: dict
    required: true
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode the words are those of what would be.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Tell which host is where
  gpufleet.llamacpp.rollout_table:
    hosts:
      gpu-a: {state: deployed, instances: [4403-glm-4.7-flash-q4]}
      gpu-b: {state: to do, instances: [4403-glm-4.7-flash-q4]}
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines that were printed.
  type: list
  elements: str
  returned: success
  sample: ["gpu-a  deployed     4403-glm-4.7-flash-q4"]
"""
