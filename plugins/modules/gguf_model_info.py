#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gguf_model_info
short_description: Gather information about GGUF models
version_added: 0.1.0
description:
  - Reads the headers of GGUF models, and the records that M(gpufleet.llamacpp.gguf_model) keeps next to them.
  - Does not read the content, so the time does not depend on the size of a model.
options:
  path:
    description:
      - The absolute path of a model, or of a folder with models. Subfolders are not searched.
      - For a split model, any part. The result is about all parts.
    type: path
    required: true
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full
seealso:
  - module: gpufleet.llamacpp.gguf_model
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Gather information about all models of a folder
  gpufleet.llamacpp.gguf_model_info:
    path: /srv/models
  register: found

- name: List them
  ansible.builtin.debug:
    msg: "{{ item.architecture }} {{ item.quantization }}, {{ item.problems | default('complete', true) }}"
  loop: "{{ found.models }}"
  loop_control:
    label: "{{ item.path }}"

- name: Fail if a model is not complete
  ansible.builtin.assert:
    that: found.models | map(attribute='problems') | flatten | length == 0
    fail_msg: "{{ found.models | map(attribute='problems') | flatten | join(' ') }}"
"""

RETURN = r"""
models:
  description: The models, in the order of their paths. Unknown values are V(none).
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The model's first or only file. This is the path for llama-server.
      type: str
      sample: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    state:
      description: V(present), or V(absent) if O(path) does not exist.
      type: str
      sample: present
    problems:
      description: Why the model is not complete, every problem. Empty for a complete model.
      type: list
      elements: str
      sample: []
    files:
      description: All existing files of the model, in order.
      type: list
      elements: dict
      contains:
        path:
          description: The file's path.
          type: str
        size:
          description: Its size in bytes.
          type: int
        sha256:
          description: The sha256 of its content, if a current record has it.
          type: str
    size:
      description: The size of all files together, in bytes.
      type: int
      sample: 98362432
    sha256:
      description: The sha256 of the only file, if a current record has it. V(none) for a split model.
      type: str
      sample: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    source:
      description: The origin of the model, without user, password and query, if a current record has it.
      type: str
      sample: https://models.example.com/SmolLM2-135M-Instruct.Q4_1.gguf
    revision:
      description: The full commit of the model's repository on the hub. V(none) if it has another origin.
      type: str
      sample: 5a1c3e0f9b7d2468ace013579bdf02468ace1357
    architecture:
      description: The model's architecture as llama.cpp names it.
      type: str
      sample: llama
    name:
      description: The name in the file.
      type: str
      sample: Smollm2 135M 8k Lc100K Mix1 Ep2
    quantization:
      description: The quantization of the weights.
      type: str
      sample: Q4_1
    parameters:
      description: The number of weights.
      type: int
      sample: 134515008
    layers:
      description: The number of layers.
      type: int
      sample: 30
    experts:
      description: The number of experts of a mixture-of-experts model.
      type: int
      sample: 64
    experts_used:
      description: The number of experts that process a token.
      type: int
      sample: 4
    context_length:
      description: The number of tokens of context that the model was trained for.
      type: int
      sample: 8192
    chat_template:
      description: Whether the file has a chat template.
      type: bool
      sample: true
    tensor_bytes:
      description: The size of the weights in bytes, which is about their size in memory.
      type: int
      sample: 96576768
    kv_bytes_per_token:
      description: Bytes of KV cache for each token of context, with the cache type V(f16).
      type: int
      sample: 23040
    kv_window_bytes_per_token:
      description: Bytes of KV cache for each token of the sliding window, in the layers that have one.
      type: int
      sample: 0
    sliding_window:
      description: The size of the sliding window in tokens.
      type: int
      sample: 4096
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._artifact.model.info import run_module


def main() -> None:
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    run_module(module)


if __name__ == "__main__":
    main()
