#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gguf_model
short_description: Have a GGUF model on a host, whole and verified
version_added: 0.1.0
description:
  - Brings a model in the GGUF format to a path on the host, from an address or from another place on that host, and
    proves that it is whole before it appears there.
  - Whole means that the header parses, that the file is long enough for its last tensor, that it has no holes, that
    the parts of a split model belong together, and that the sha256 is the wanted one where O(sha256) is given.
  - What the path held before stays in place, untouched, until the new file is whole. The new one then takes its place
    at once; a server that has the old one open keeps it.
  - What was verified is recorded in the hidden folder C(.gguf_model) beside the file. The next run looks at that
    record only, so that its time does not depend on the size of the model.
options:
  path:
    description:
      - The model's absolute path on the host. A missing folder is created.
      - Any part of a split model, such as V(/models/big-00001-of-00003.gguf), stands for all its parts. They are
        brought together, and none of them appears before all of them are whole.
    type: path
    required: true
  state:
    description:
      - V(present) has the model there, V(absent) removes all its files and their records.
      - Without O(url) and O(src), V(present) only verifies that the model is there, and fails where it is not.
    type: str
    choices: [present, absent]
    default: present
  url:
    description:
      - The http or https address to fetch the model from, where the host does not have it yet.
      - For a split model, the address of any part; the others are expected beside it.
      - Without O(sha256), a file that once came from this address is kept while its content is unchanged, and a file of
        unknown origin that is a whole model is kept too. Give O(sha256) to say exactly which content is wanted.
      - Mutually exclusive with O(src).
    type: str
  src:
    description:
      - A GGUF file on the host, to copy the model from. The copy shares its blocks where the file system can do that.
      - Without O(sha256), a changed O(src) is copied again.
      - O(src) may be the same file as O(path), which is then only verified.
      - Mutually exclusive with O(url).
    type: path
  sha256:
    description:
      - The digest of the wanted content, of 64 hexadecimal digits. Recommended, as nothing else tells every damage.
      - For a split model, one digest for each part, in order.
    type: list
    elements: str
    default: []
  verify:
    description:
      - When the content of a file that is already there is read again.
      - V(changed) reads it when its size, times or inode are not those recorded.
      - V(always) reads it at every run, which finds what a disk lost silently. It takes about a second for each GB.
      - V(never) looks at the header and the length only. New files are verified all the same.
    type: str
    choices: [changed, always, never]
    default: changed
  home:
    description:
      - Where instances live on this host. The Python environment in C(venv) there has the library that O(url) needs.
      - The default is V(/opt/llamacpp) for root, and V(~/llamacpp) for another user.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - What an address holds is not known before it is fetched, so RV(model) has less in it then.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - requests (on the host; for O(url) only)
seealso:
  - module: gpufleet.llamacpp.gguf_model_info
  - module: gpufleet.llamacpp.llamacpp_instance
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Have a model, fetched once and verified
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    url: https://models.example.com/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  register: smol

- name: Show what it is
  ansible.builtin.debug:
    msg: >-
      {{ smol.model.architecture }} {{ smol.model.quantization }}, {{ smol.model.parameters }} parameters, up to
      {{ smol.model.context_length }} tokens at {{ smol.model.kv_bytes_per_token }} bytes each

- name: Copy a model from shared storage to the host's own disk
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    src: /mnt/share/models/SmolLM2-135M-Instruct.Q4_1.gguf

- name: Have all parts of a split model
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/big/big-Q4_K_M-00001-of-00002.gguf
    url: https://models.example.com/big/big-Q4_K_M-00001-of-00002.gguf
    sha256:
      - 5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
      - 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b

- name: Read every byte of a model again, and fail if one is wrong
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    verify: always

- name: Remove a model
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - Fetch https://models.example.com/SmolLM2-135M-Instruct.Q4_1.gguf to /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
reasons:
  description: Why it was done.
  returned: success
  type: list
  elements: str
  sample: [/srv/models/SmolLM2-135M-Instruct.Q4_1.gguf is not there]
model:
  description:
    - The model as it is on the host, or as it would be in check mode. What is not known is V(none).
  returned: success
  type: dict
  contains:
    path:
      description: The model's first or only file, which is what llama-server is started with.
      type: str
      sample: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    state:
      description: Whether the model is there.
      type: str
      sample: present
    files:
      description: All files of the model, in order.
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
          description: The digest of its content; V(none) with O(verify=never) where none is recorded.
          type: str
    size:
      description: The size of all files together, in bytes.
      type: int
      sample: 98362432
    sha256:
      description: The digest of the only file; V(none) for a split model, see RV(model.files).
      type: str
      sample: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    source:
      description: Where the model came from, without user, password and query; V(none) where that is not known.
      type: str
      sample: https://models.example.com/SmolLM2-135M-Instruct.Q4_1.gguf
    architecture:
      description: The model's architecture as llama.cpp names it.
      type: str
      sample: llama
    name:
      description: The name in the file.
      type: str
      sample: Smollm2 135M 8k Lc100K Mix1 Ep2
    quantization:
      description: The file type by which the weights are quantized.
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
      description: The number of experts that work on one token.
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
      description: The size of the weights in bytes; about what they take in memory.
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
transfer:
  description: What came over the network.
  returned: when a file was fetched
  type: dict
  contains:
    bytes_fetched:
      description: Bytes received in this run.
      type: int
      sample: 98362432
    bytes_resumed:
      description: Bytes that an earlier, interrupted run had already received.
      type: int
      sample: 0
    bytes_from_mirrors:
      description: Those of the received bytes that came from another place than O(url).
      type: int
      sample: 0
    retries:
      description: How often a request was repeated.
      type: int
      sample: 0
    seconds:
      description: How long the fetching took.
      type: float
      sample: 1.9
    rate:
      description: Bytes received in a second.
      type: int
      sample: 51769701
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import model_fetch
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.identity import FileChanged
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model import ModelError, plan, shown, want
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model_apply import apply
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model_observe import (
    describe,
    foreseen,
    observe,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.python import default_home, ensure_library
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import diff_of, result, sentences


def run(module: AnsibleModule) -> dict:
    params = module.params
    wanted = want(params["path"], params["state"], params["verify"], params["url"], params["src"], params["sha256"])
    observed = observe(wanted, foresee=module.check_mode)
    steps = plan(wanted, observed)
    if steps.refusals:
        module.fail_json(msg=sentences(steps.refusals), problems=list(steps.refusals))
    if module.check_mode:
        files, more = foreseen(wanted, observed, steps), {}
    else:
        if params["url"] and steps.bring:
            ensure_library(module, "requests", params["home"] or default_home())
        applied = apply(wanted, observed, steps, model_fetch.bring, model_fetch.needs)
        files, more = applied.files, model_fetch.transfer_of(applied.transfers)
        for warning in applied.warnings:
            module.warn(warning)
    if module._diff:
        more["diff"] = diff_of(shown(observed.files), shown(files), wanted.files[0].path)
    return result(steps.actions, describe(wanted.files[0].path, files), "model", **more)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "url": {"type": "str"},
            "src": {"type": "path"},
            "sha256": {"type": "list", "elements": "str", "default": []},
            "verify": {"type": "str", "choices": ["changed", "always", "never"], "default": "changed"},
            "home": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (FileChanged, ModelError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
