#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llamacpp_plan
short_description: Preview pending changes for all instances of a host
version_added: 0.1.0
description:
  - Checks all declared instances of a host with their models and images in one call, as
    M(gpufleet.llamacpp.llamacpp_instance) and M(gpufleet.llamacpp.gguf_model) do in check mode. Returns those that need
    a task of their own. So a host without changes costs one task, however many instances it has.
  - Each instance is checked with the instances before it in mind. They will have used or freed memory and GPUs by then.
  - Fails with all problems of all instances at once, before anything changes.
  - Does not read models. A model without a record counts as a change.
  - The role C(gpufleet.llamacpp.llamacpp) uses this module.
options:
  instances:
    description:
      - The instances as the filter P(gpufleet.llamacpp.declared#filter) returns them. Their keys are the options of
        M(gpufleet.llamacpp.llamacpp_instance), and C(model) is a mapping of the options of
        M(gpufleet.llamacpp.gguf_model). An instance without model and port is taken from its record on the host.
    type: list
    elements: dict
    required: true
  home:
    description:
      - Folder on the host that contains the instances.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for other users.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode, a missing image or model is a warning, because an earlier task may provide it.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance
  - module: gpufleet.llamacpp.gguf_model
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Find the pending changes
  gpufleet.llamacpp.llamacpp_plan:
    instances: "{{ llamacpp_instances | gpufleet.llamacpp.declared }}"
  register: pending

- name: Show them
  ansible.builtin.debug:
    msg: "Instances to change: {{ pending.instances | map(attribute='name') | join(', ') or 'none' }}"
"""

RETURN = r"""
models:
  description: The models to fetch, verify or record, each once, as given.
  type: list
  elements: dict
  returned: success
images:
  description: The images to pull, as options of M(gpufleet.llamacpp.sif_image).
  type: list
  elements: dict
  returned: success
instances:
  description: The given instances that need a change, or a new record.
  type: list
  elements: dict
  returned: success
undeclared:
  description: Names of the host's instances that are not declared.
  type: list
  elements: str
  returned: success
  sample: [4404-old]
memory:
  description:
    - What each server that is to start needs on each GPU, in bytes, and what stays free. The rows follow the order
      of the starts, so the last row of a GPU shows what stays free in the end.
    - A row has the keys of RV(gpufleet.llamacpp.llamacpp_instance#module:memory), and the name of the C(instance).
  type: list
  elements: dict
  returned: success
problems:
  description: Why the host is not ready, every problem at once. C(msg) has the same as text.
  returned: if the task is refused
  type: list
  elements: dict
  contains:
    subject:
      description: The instance or the model that the problem is about.
      type: str
    option:
      description: The option that the problem is about. Empty if it is about none.
      type: str
    problem:
      description: What was found and what was expected.
      type: str
    remedy:
      description: What to do.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._instance.module import run_plan_module


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "home": {"type": "path"},
        },
        supports_check_mode=True,
    )
    run_plan_module(module)


if __name__ == "__main__":
    main()
