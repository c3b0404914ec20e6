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
  - Brings a model in the GGUF format to a path on the host, from a model hub, from an address or from another place on
    that host, and proves that it is whole before it appears there.
  - Whole means that the header parses, that the file is long enough for its last tensor, that it has no holes, that
    the parts of a split model belong together, and that the sha256 is the one that the hub or O(sha256) says.
  - It is fetched over several connections at once, and synced and hashed on the way. What arrived before a broken line,
    a killed task or a power cut is not fetched again.
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
      - V(absent) is refused while an instance of O(home) has the model, or had it in its last release, and while a
        process has it open, as far as this user can see that; unless O(force=true).
      - Without O(repo), O(url) and O(src), V(present) only verifies that the model is there, and fails where it is not.
    type: str
    choices: [present, absent]
    default: present
  force:
    description:
      - Whether V(absent) also removes a model that is in use. A server that has it loaded keeps it until it is started
        again, and an instance that had it in its last release cannot go back to that.
    type: bool
    default: false
  repo:
    description:
      - The repository on the model hub that has the model, such as V(unsloth/GLM-4.7-Flash-GGUF).
      - The hub tells the size and the sha256 of each file, so that O(sha256) is not needed.
      - Mutually exclusive with O(url) and O(src); needs O(file).
    type: str
  file:
    description:
      - The model's file in O(repo), with its folders, such as V(GLM-4.7-Flash-UD-Q4_K_XL.gguf).
      - For a split model any part, or a pattern that fits its parts, such as V(UD-Q2_K_XL/*-of-00003.gguf). A pattern
        has to mean one model, and O(path) a part of as many parts.
    type: str
  revision:
    description:
      - The branch, tag or commit of O(repo). It is resolved to one commit, which all parts are taken from, and which is
        returned as RV(model.revision).
      - A branch or tag is asked for at every run, with one request, and followed where it leads to another content. A
        full commit of 40 digits always means the same content, so once that is there nothing is asked any more.
    type: str
    default: main
  endpoint:
    description:
      - The address of the model hub, or of a mirror that speaks its protocol.
      - The default is the environment variable E(HF_ENDPOINT) on the host, and V(https://huggingface.co) without it.
    type: str
  token:
    description:
      - A token of the model hub, for gated and private repositories and a higher limit of requests.
      - It is sent to O(endpoint) alone, and neither logged, recorded nor returned. O(token_file) keeps it off the
        controller too.
      - Mutually exclusive with O(token_file).
    type: str
  token_file:
    description:
      - A file on the host that holds the token and nothing else.
      - Mutually exclusive with O(token).
    type: path
  offline:
    description:
      - Use no network at all. What is on the host has to be what was fetched before, or what O(sha256) says, else the
        task fails.
      - The default is the environment variable E(HF_HUB_OFFLINE) on the host, and V(false) without it.
    type: bool
  url:
    description:
      - The http or https address to fetch the model from, where the host does not have it yet.
      - For a split model, the address of any part; the others are expected beside it.
      - Without O(sha256), a file that once came from this address is kept while its content is unchanged, and a file of
        unknown origin that is a whole model is kept too. Give O(sha256) to say exactly which content is wanted.
      - Mutually exclusive with O(repo) and O(src).
    type: str
  src:
    description:
      - A GGUF file on the host, to copy the model from. The copy shares its blocks where the file system can do that.
      - Without O(sha256), a changed O(src) is copied again.
      - O(src) may be the same file as O(path), which is then only verified.
      - Mutually exclusive with O(repo) and O(url).
    type: path
  mirrors:
    description:
      - More addresses of the same file as O(repo) or O(url), such as servers nearby. All of them are used at once, and
        one that is slow or broken is dropped.
      - For a split model, the address of any part. One that ends with a slash is a folder with files of the same names
        as in O(path).
      - The token is not sent to them. With O(url) they need O(sha256), which proves that they hold the same.
    type: list
    elements: str
    default: []
  connections:
    description:
      - How many connections fetch at the same time, from 1 to 64.
    type: int
    default: 8
  max_rate:
    description:
      - The most bytes in a second over all connections, such as V(50M). Without it there is no limit.
    type: bytes
  ca_path:
    description:
      - A file or folder on the host with the certificates of the authorities to trust, where the system's do not do.
    type: path
  sha256:
    description:
      - The digest of the wanted content, of 64 hexadecimal digits. Recommended with O(url), as nothing else tells every
        damage. With O(repo), the hub has to have the same.
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
      - Where instances live on this host. The Python environment in C(venv) there has the library that O(repo) and
        O(url) need.
      - The default is V(/opt/llamacpp) for root, and V(~/llamacpp) for another user.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - Only a hub is asked, for what it has, and nothing is fetched. What is inside a file is not known before it is
        fetched, so RV(model) has less in it then; with O(url) not even the size.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - requests (on the host; for O(repo) and O(url) only)
notes:
  - While a model is brought, a line for each host tells on standard error how far it is. With a verbosity below zero
    (C(ANSIBLE_VERBOSITY=-1)), in check mode and with C(no_log) there is none.
  - It is brought by a job on the host, which a lost connection does not end. The connection is tried again for five
    minutes; the job then goes on by itself, and the next run uses what has come by then.
  - With C(async) of its own, the task is left to Ansible, and tells nothing before its end.
seealso:
  - module: gpufleet.llamacpp.gguf_model_info
  - module: gpufleet.llamacpp.llamacpp_instance
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Have a model of the hub, whatever its main branch holds
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf
    repo: unsloth/GLM-4.7-Flash-GGUF
    file: GLM-4.7-Flash-UD-Q4_K_XL.gguf

- name: Have all three parts of a split model, at a commit that never changes, from a server nearby too
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00001-of-00003.gguf
    repo: unsloth/GLM-4.7-GGUF
    file: UD-Q2_K_XL/*-of-00003.gguf
    revision: 5a1c3e0f9b7d2468ace013579bdf02468ace1357
    mirrors:
      - http://storage.example.com/models/UD-Q2_K_XL/
    max_rate: 400M

- name: Have a model of a gated repository, through the site's own mirror of the hub
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/gemma-3-27b-it-q4_0.gguf
    repo: google/gemma-3-27b-it-qat-q4_0-gguf
    file: gemma-3-27b-it-q4_0.gguf
    endpoint: https://hub.example.com
    ca_path: /etc/ssl/example-ca.pem
    token_file: /etc/llamacpp/hub-token

- name: Fail unless the model that was fetched before is still whole, without any network
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf
    repo: unsloth/GLM-4.7-Flash-GGUF
    file: GLM-4.7-Flash-UD-Q4_K_XL.gguf
    offline: true
    verify: always

- name: Have a model of any server, fetched once and verified
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
    revision:
      description: The full commit of the model's repository on the hub; V(none) where it came from elsewhere.
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
      description: Those of the received bytes that came from O(mirrors).
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

from ..module_utils._artifact.model.module import run_module
from ..module_utils._artifact.model.options import EXCLUSIVE, MODEL, TOGETHER
from ..module_utils._instance import in_use


def main() -> None:
    module = AnsibleModule(
        argument_spec=MODEL,
        mutually_exclusive=EXCLUSIVE,
        required_together=TOGETHER,
        supports_check_mode=True,
    )
    run_module(module, in_use.problems)


if __name__ == "__main__":
    main()
