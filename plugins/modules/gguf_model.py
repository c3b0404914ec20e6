#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gguf_model
short_description: Download and verify GGUF models
version_added: 0.1.0
description:
  - Puts a model in the GGUF format at a path on the host, from a model hub, a web server or a file on the host. The
    model appears there only after it has been verified.
  - The module verifies that the header parses, that the file is long enough for its last tensor and has no holes, that
    the parts of a split model belong together, and that the sha256 is the one that the hub or O(sha256) gives.
  - The download uses several connections. It is written and hashed as it arrives. After a broken connection, a killed
    task or a power failure, the next run resumes it.
  - The previous file at the path stays untouched until the new one is verified, and is then replaced atomically. A
    server that has the previous file open keeps it.
  - The module records what it verified in the hidden folder C(.gguf_model) next to the file. The next run reads only
    that record, so that its time does not depend on the size of the model.
options:
  path:
    description:
      - The model's absolute path on the host. A missing folder is created.
      - For a split model, any part, such as V(/models/big-00001-of-00003.gguf). The module handles all parts together.
        None of them appears before all are verified.
    type: path
    required: true
  state:
    description:
      - V(present) puts the model there. V(absent) removes all its files and their records.
      - V(absent) is refused if an instance of O(home) uses the model or used it in its last release, or if this user
        can see that a process has it open; unless O(force=true).
      - Without O(repo), O(url) and O(src), V(present) verifies the model, and fails if it is missing.
    type: str
    choices: [present, absent]
    default: present
  force:
    description:
      - Whether V(absent) also removes a model that is in use. A server that has loaded it keeps it until its next
        start. An instance cannot roll back to a release that used it.
    type: bool
    default: false
  repo:
    description:
      - The repository on the model hub, such as V(unsloth/GLM-4.7-Flash-GGUF).
      - The hub gives the size and the sha256 of each file, so O(sha256) is not needed.
      - Mutually exclusive with O(url) and O(src); requires O(file).
    type: str
  file:
    description:
      - The model's file in O(repo), with its folders, such as V(GLM-4.7-Flash-UD-Q4_K_XL.gguf).
      - For a split model, any part or a pattern that matches its parts, such as V(UD-Q2_K_XL/*-of-00003.gguf). A
        pattern has to match one model, and O(path) has to name a part of as many parts.
    type: str
  revision:
    description:
      - The branch, tag or commit of O(repo). The module resolves it to one commit, takes all parts from it, and returns
        it as RV(model.revision).
      - A branch or tag costs one request for each run, and new content is fetched. A full commit of 40 digits never
        changes, so once the model is there, the module sends no requests.
    type: str
    default: main
  endpoint:
    description:
      - The address of the model hub, or of a mirror with the same API.
      - The default is the environment variable E(HF_ENDPOINT) on the host, then V(https://huggingface.co).
    type: str
  token:
    description:
      - A token of the model hub, for gated and private repositories and a higher rate limit.
      - The module sends it to O(endpoint) only, and does not log, record or return it. With O(token_file) the control
        node does not have it either.
      - Mutually exclusive with O(token_file).
    type: str
  token_file:
    description:
      - A file on the host that contains only the token.
      - Mutually exclusive with O(token).
    type: path
  offline:
    description:
      - Do not use the network. The model on the host has to be the one that was fetched before, or the one with
        O(sha256), else the task fails.
      - The default is the environment variable E(HF_HUB_OFFLINE) on the host, then V(false).
    type: bool
  url:
    description:
      - The http or https address to fetch the model from, if the host does not have it.
      - For a split model, the address of any part. The others have to be in the same folder.
      - Without O(sha256), the module keeps a file that it fetched from this address while the content is unchanged, and
        a complete model of unknown origin. Set O(sha256) to select the content exactly.
      - Mutually exclusive with O(repo) and O(src).
    type: str
  src:
    description:
      - A GGUF file on the host to copy. The copy shares its blocks if the file system supports that.
      - Without O(sha256), a changed O(src) is copied again.
      - O(src) can be the same file as O(path). The module then only verifies it.
      - Mutually exclusive with O(repo) and O(url).
    type: path
  mirrors:
    description:
      - More addresses of the same file as O(repo) or O(url), such as local servers. The module uses all of them at the
        same time, and drops one that is slow or broken.
      - For a split model, the address of any part. An address that ends with a slash is a folder with files of the same
        names as in O(path).
      - The module does not send the token to them. With O(url), mirrors require O(sha256), which proves that they have
        the same content.
    type: list
    elements: str
    default: []
  connections:
    description:
      - How many connections to use at the same time, 1 to 64.
    type: int
    default: 8
  max_rate:
    description:
      - The rate limit in bytes per second over all connections, such as V(50M). By default there is none.
    type: bytes
  ca_path:
    description:
      - A file or folder on the host with CA certificates, if the system's certificates are not enough.
    type: path
  sha256:
    description:
      - The sha256 of the content, 64 hexadecimal digits. Recommended with O(url), because nothing else detects all
        damage. With O(repo), the hub has to have the same one.
      - For a split model, one for each part, in order.
    type: list
    elements: str
    default: []
  verify:
    description:
      - When to read the content of a file again that is already there.
      - V(changed) - if its size, times or inode differ from the record.
      - V(always) - in every run, which finds silent corruption of the disk. It takes about a second for each GB.
      - V(never) - check only the header and the length. New files are verified anyway.
    type: str
    choices: [changed, always, never]
    default: changed
  home:
    description:
      - Folder on the host that contains the instances. The Python environment in its C(venv) has the library that
        O(repo) and O(url) need.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for other users.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - The module queries the hub and fetches nothing. The content of a file is not known before it is fetched, so
        RV(model) contains less. With O(url) it does not even contain the size.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - requests on the host, for O(repo) and O(url)
notes:
  - During a download, a progress line for each host appears on standard error. It does not appear with a verbosity
    below zero (C(ANSIBLE_VERBOSITY=-1)), in check mode and with C(no_log).
  - A job on the host does the download. A lost connection does not end the job. The module tries to connect again for
    five minutes. After that the job continues, and the next run uses what it has fetched.
  - With C(async), Ansible runs the task, and there is no progress line.
seealso:
  - module: gpufleet.llamacpp.gguf_model_info
  - module: gpufleet.llamacpp.llamacpp_instance
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Download a model from the hub, and follow its main branch
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf
    repo: unsloth/GLM-4.7-Flash-GGUF
    file: GLM-4.7-Flash-UD-Q4_K_XL.gguf

- name: Download a split model at a fixed commit, also from a local mirror
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00001-of-00003.gguf
    repo: unsloth/GLM-4.7-GGUF
    file: UD-Q2_K_XL/*-of-00003.gguf
    revision: 5a1c3e0f9b7d2468ace013579bdf02468ace1357
    mirrors:
      - http://storage.example.com/models/UD-Q2_K_XL/
    max_rate: 400M

- name: Download a model of a gated repository through the site's own mirror of the hub
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/gemma-3-27b-it-q4_0.gguf
    repo: google/gemma-3-27b-it-qat-q4_0-gguf
    file: gemma-3-27b-it-q4_0.gguf
    endpoint: https://hub.example.com
    ca_path: /etc/ssl/example-ca.pem
    token_file: /etc/llamacpp/hub-token

- name: Verify a downloaded model without the network
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf
    repo: unsloth/GLM-4.7-Flash-GGUF
    file: GLM-4.7-Flash-UD-Q4_K_XL.gguf
    offline: true
    verify: always

- name: Download a model from a web server
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    url: https://models.example.com/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  register: smol

- name: Show its properties
  ansible.builtin.debug:
    msg: >-
      {{ smol.model.architecture }} {{ smol.model.quantization }}, {{ smol.model.parameters }} parameters, up to
      {{ smol.model.context_length }} tokens at {{ smol.model.kv_bytes_per_token }} bytes each

- name: Copy a model from shared storage to the host's own disk
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    src: /mnt/share/models/SmolLM2-135M-Instruct.Q4_1.gguf

- name: Download a split model from a web server
  gpufleet.llamacpp.gguf_model:
    path: /srv/models/big/big-Q4_K_M-00001-of-00002.gguf
    url: https://models.example.com/big/big-Q4_K_M-00001-of-00002.gguf
    sha256:
      - 5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
      - 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b

- name: Read a whole model again, and fail if it is damaged
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
  description: What the module did, or would do in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - Fetch https://models.example.com/SmolLM2-135M-Instruct.Q4_1.gguf to /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
reasons:
  description: Why, each reason once.
  returned: success
  type: list
  elements: str
  sample: [/srv/models/SmolLM2-135M-Instruct.Q4_1.gguf is not there]
model:
  description:
    - The model as it is on the host, or would be in check mode. Unknown values are V(none).
  returned: success
  type: dict
  contains:
    path:
      description: The model's first or only file. This is the path for llama-server.
      type: str
      sample: /srv/models/SmolLM2-135M-Instruct.Q4_1.gguf
    state:
      description: Whether the model exists.
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
          description: The sha256 of its content. V(none) with O(verify=never) if none is recorded.
          type: str
    size:
      description: The size of all files together, in bytes.
      type: int
      sample: 98362432
    sha256:
      description: The sha256 of the only file. V(none) for a split model, see RV(model.files).
      type: str
      sample: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    source:
      description: The origin of the model, without user, password and query. V(none) if it is not known.
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
transfer:
  description: Statistics of the download.
  returned: if a file was fetched
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
      description: Bytes of these that came from O(mirrors).
      type: int
      sample: 0
    retries:
      description: How many requests were repeated.
      type: int
      sample: 0
    seconds:
      description: Duration of the download.
      type: float
      sample: 1.9
    rate:
      description: Bytes received per second.
      type: int
      sample: 51769701
problems:
  description: Why the module refused the task, every problem at once. C(msg) has the same as text.
  returned: if the task is refused
  type: list
  elements: dict
  contains:
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

import os
from functools import partial

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._artifact.file_record import FileChanged
from ..module_utils._artifact.model.apply import apply
from ..module_utils._artifact.model.decide import decide
from ..module_utils._artifact.model.fetch import Network, transfer_of
from ..module_utils._artifact.model.observe import describe, foreseen
from ..module_utils._artifact.model.options import EXCLUSIVE, MODEL, TOGETHER
from ..module_utils._artifact.model.plan import ModelError, shown
from ..module_utils._fetch.progress import DEFERRED, ProgressFile, begin, is_deferred
from ..module_utils._fetch.source import FetchError
from ..module_utils._host.files import let_servers_read
from ..module_utils._host.layout import default_home
from ..module_utils._host.python import ensure_library, prefer_library
from ..module_utils._instance import in_use
from ..module_utils._result import Problem, diff_of, failure, result


def ready_to_ask(module: AnsibleModule) -> bool:
    """Whether there is what it takes to ask the network; only check mode goes on without it."""
    home = module.params["home"] or default_home()
    if module.check_mode and not prefer_library("requests", home):
        module.warn("The hub was not asked, as requests is not on the host yet. What it has cannot be foreseen.")
        return False
    ensure_library(module, "requests", home)
    return True


def run(module: AnsibleModule, progress: ProgressFile) -> dict:
    params = module.params
    decision = decide(
        params, os.environ, partial(ready_to_ask, module), module.no_log_values.add, foresee=module.check_mode
    )
    wanted, observed, steps = decision.wanted, decision.observed, decision.plan
    for warning in wanted.warnings:
        module.warn(warning)
    refusals: list = list(steps.refusals)
    if wanted.state == "absent" and not params["force"]:
        refusals += in_use.problems(params["home"] or default_home(), [file.path for file in wanted.files])
    if refusals:
        module.fail_json(**failure([Problem("", str(refusal).rstrip(".")) for refusal in refusals]))
    if steps.bring and not module.check_mode and is_deferred():
        module.exit_json(**DEFERRED)
    if module.check_mode:
        files, more = foreseen(wanted, observed, steps), {}
    else:
        if wanted.files[0].url and steps.bring:
            ready_to_ask(module)
        network = Network(params["connections"], params["max_rate"], params["ca_path"], decision.hub, progress)
        applied = apply(wanted, observed, steps, network.bring, network.needs, progress)
        files, more = applied.files, transfer_of(applied.transfers)
        for warning in applied.warnings:
            module.warn(warning)
    if module._diff:
        more["diff"] = diff_of(shown(observed.files), shown(files), wanted.files[0].path)
    return result(steps.actions, describe(wanted.files[0].path, files), "model", **more)


def main() -> None:
    module = AnsibleModule(
        argument_spec=MODEL,
        mutually_exclusive=EXCLUSIVE,
        required_together=TOGETHER,
        supports_check_mode=True,
    )
    let_servers_read()
    try:
        with begin(module.params["path"]) as progress:
            module.exit_json(**run(module, progress))
    except (FileChanged, FetchError, ModelError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
