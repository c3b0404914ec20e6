#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llamacpp_plan
short_description: Foretell what there is to do about all instances of a host
version_added: 0.1.0
description:
  - Looks at a host's declared instances, their models and their images in one go, as
    M(gpufleet.llamacpp.llamacpp_instance) and M(gpufleet.llamacpp.gguf_model) would in check mode, and tells which of
    them need a task of their own. A host with nothing to do is asked once, however many instances it has.
  - Each is looked at with those before it in mind, which by then hold their memory and their GPUs, or gave them back.
  - Fails with every problem of all of them at once, before anything is touched.
  - Reads nothing of a model. One that is not on record counts as something to do.
  - The role C(gpufleet.llamacpp.llamacpp) uses it.
options:
  instances:
    description:
      - The instances as the filter P(gpufleet.llamacpp.declared#filter) returns them. Their keys are the options of
        M(gpufleet.llamacpp.llamacpp_instance), and C(model) is a mapping of the options of
        M(gpufleet.llamacpp.gguf_model). One without model and port is taken as it is recorded on the host.
    type: list
    elements: dict
    required: true
  home:
    description:
      - Folder that holds everything. The default is C(~/llamacpp), for root C(/opt/llamacpp).
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode what is missing on the host is a warning, since an earlier task might have brought it.
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
- name: See what there is to do
  gpufleet.llamacpp.llamacpp_plan:
    instances: "{{ llamacpp_instances | gpufleet.llamacpp.declared }}"
  register: there_is

- name: Tell it
  ansible.builtin.debug:
    msg: "To be changed: {{ there_is.instances | map(attribute='name') | join(', ') or 'nothing' }}"
"""

RETURN = r"""
models:
  description: The models that have to be brought, read or recorded; each once, as it was given.
  type: list
  elements: dict
  returned: success
images:
  description: The images that have to be pulled, as options of M(gpufleet.llamacpp.sif_image).
  type: list
  elements: dict
  returned: success
instances:
  description: Those of the given instances that are to be changed, or recorded anew.
  type: list
  elements: dict
  returned: success
undeclared:
  description: Names of the host's instances that are not among the given ones.
  type: list
  elements: str
  returned: success
  sample: [4404-old]
memory:
  description:
    - What the servers that are to be started take on each GPU, in bytes, and what is left, one after the other. Each is
      looked at with those before it in mind, so the last row of a GPU tells what is left in the end.
    - The rows are RV(gpufleet.llamacpp.llamacpp_instance#module:memory), with the name of the C(instance).
  type: list
  elements: dict
  returned: success
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
