#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llamacpp_instance
short_description: Manage llama-server instances
version_added: 0.1.0
description:
  - Deploys one instance. An instance is one C(llama-server) on one host, with a name, a port, an image, a model, GPUs
    and arguments.
  - A manager that the host already has keeps the server running, with or without root. Between the manager and the
    container runs a small program, the runner. It waits for requests in flight before it stops the server, and restarts
    a server that hangs.
  - An instance counts as started only after it has passed the gate (O(gate)). The module then records what it proved as
    the release, with the token rate and the time to the first token.
  - The module restarts the server only if options, image or model changed. RV(reasons) says why.
  - If a changed instance does not pass the gate, the module starts the last release again and fails with the cause.
  - On the host, C(run.sh start|stop|restart|status|logs) in the instance's folder works without Ansible.
options:
  name:
    description:
      - Name of the instance, and of its folder in O(home). Letters, digits, dot, dash and underscore.
    type: str
    required: true
  state:
    description:
      - V(started) - the instance runs as described and has passed the gate. It is restarted if it changed.
      - V(restarted) - like V(started), but it is always restarted.
      - If you set one of these two and neither O(model) nor O(port), the module takes the instance from its record on
        the host. Of the other options that describe the instance it then uses only O(image).
      - V(present) - all files are in place. Nothing is started, stopped or restarted. Whether the instance starts at
        boot does not change; a new instance does not.
      - V(stopped) - the instance does not run and does not start at boot. Its options are ignored.
      - V(absent) - the instance, its folder and its unit do not exist. Image and model are kept.
    type: str
    choices: [started, restarted, present, stopped, absent]
    default: started
  home:
    description:
      - Folder on the host that contains the instances.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for other users.
    type: path
  image:
    description:
      - Path of a SIF file on the host, absolute or relative to O(home); or an address that
        M(gpufleet.llamacpp.sif_image) accepts, C(https://), C(http://), C(oras://), C(docker://) or C(library://).
      - The module stores an image from an address in C(<home>/shared) under a name that contains the beginning of its
        digest. So the image of the last release is kept, and a rollback can use it. The digest is that of the file. For
        C(docker://) it is that of the manifest. For C(library://) without O(image_sha256) it is that of the address.
      - C(oras://) and C(docker://) addresses that end with C(@sha256:<digest>) select exactly one image. RV(instance)
        returns the digest of a tag as C(image.digest).
      - Required for an instance that is new or whose record is to change.
    type: str
  image_sha256:
    description:
      - The sha256 of the image file. An image with another one is refused.
      - Required for C(http://) and C(https://), because nothing else detects all damage. Not for C(docker://).
    type: str
  pull:
    description:
      - When to pull an image that is given by address.
      - V(missing) - if the host has no image from that address. The tag is resolved once.
      - V(always) - also if the tag points to another image now. This is one request for each run, and none if
        O(image_sha256) or a digest in O(image) selects the image.
      - V(never) - never; the image must be on the host.
    type: str
    choices: [missing, always, never]
    default: missing
  image_auth_file:
    description:
      - File on the host with credentials for registries, as C(docker login) and C(apptainer registry login) write it,
        for a private C(oras://) or C(docker://) image.
    type: path
  image_no_https:
    description:
      - Whether the registry of an C(oras://) or C(docker://) image uses plain HTTP.
    type: bool
    default: false
  image_ca_path:
    description:
      - File or folder on the host with the CA certificates for the registry or the web server. The default is the
        certificates of the host's Python environment.
    type: path
  model:
    description:
      - Absolute path of the GGUF file on the host. For a split model, the path of its first part.
      - M(gpufleet.llamacpp.gguf_model) downloads it.
      - Required for an instance that is new or whose record is to change.
    type: path
  alias:
    description:
      - Name of the model in the API (C(--alias)).
    type: str
  host:
    description:
      - Address to listen on (C(--host)).
      - With an address other than the default, the network can reach the server. Set O(api_key_file) too.
    type: str
    default: 127.0.0.1
  port:
    description:
      - TCP port to listen on (C(--port)), 1 to 65535.
      - Required for an instance that is new or whose record is to change.
    type: int
  gpus:
    description:
      - GPUs that the instance can use, as indexes in the order of C(nvidia-smi) or as UUIDs.
      - They become E(CUDA_VISIBLE_DEVICES), and the container gets NVIDIA's libraries (C(--nv)).
      - Without this option the instance runs on the CPU.
    type: list
    elements: str
    default: []
  gpu_layers:
    description:
      - How many layers go to the GPUs (C(-ngl)); a number, V(auto) or V(all).
    type: str
  context_size:
    description:
      - Size of the context in tokens (C(-c)). V(0) is the length that the model was trained with.
    type: int
  threads:
    description:
      - Number of CPU threads (C(-t)).
    type: int
  parallel:
    description:
      - Number of slots, which is the number of requests that the server processes at the same time (C(-np)). By default
        llama-server chooses it, and all slots share the whole context.
      - If you set a number, each slot gets that part of O(context_size). With 65536 tokens and 4 slots, a slot has
        16384 tokens, unless O(args) has C(--kv-unified).
    type: int
    version_added: 0.2.0
  args:
    description:
      - Further options of llama-server, in the order of its command line.
      - One entry is one option with its value, such as V(--temp 1.0). Everything after the first blank is the value.
        Quotes have no special meaning.
      - The second value of an option is an entry of its own.
      - Options that this module has under a name of its own are refused here.
      - The module checks names and values against the llama-server in the image before it changes anything.
    type: list
    elements: str
    default: []
  allow_options:
    description:
      - Options of llama-server that give API clients access beyond the model. O(args) refuses them unless you list
        them here. They are C(--tools), C(--agent), C(--mcp-servers-config), C(--mcp-servers-json),
        C(--ui-mcp-proxy), C(--rpc), C(--slot-save-path), C(--media-path), C(--path), C(--props) and
        C(--log-prompts-dir).
      - The same applies to their variables in O(env).
    type: list
    elements: str
    default: []
  env:
    description:
      - Environment variables for llama-server. It gets no others from the host.
      - The record and C(run.sh) on the host contain them, so do not put secrets here.
    type: dict
    default: {}
  binds:
    description:
      - Folders or files of the host to bind into the container, as C(/on/host:/in/container) with an optional C(:ro).
      - If none of them contains O(model), the module binds its folder to C(/models), read-only.
    type: list
    elements: str
    default: []
  api_key_file:
    description:
      - File on the host with one API key a line (C(--api-key-file)). The server refuses requests without one of them.
      - The module refuses a file without a key, because llama-server would then accept all requests.
    type: path
  min_build:
    description:
      - The lowest build of llama.cpp that the image may have, such as V(11434), as C(llama-server --version) prints it.
      - It also applies to a server that runs already. Without it, the module warns of a build with known
        vulnerabilities when something about the instance changes.
    type: int
  server_path:
    description:
      - Path of llama-server in the image.
      - By default the module searches the image's E(PATH) and the usual places.
    type: str
  manager:
    description:
      - What keeps the instance running.
      - V(auto) - V(systemd) for root, V(systemd_user) for a user with lingering enabled, else V(supervisor). An
        instance keeps the manager that was chosen first.
      - V(systemd) - a system unit. Needs root; the server runs as O(user).
      - V(systemd_user) - a unit of the connecting user, who needs lingering (C(loginctl enable-linger)).
      - V(supervisor) - supervisord from C(<home>/venv), which the user's crontab starts at boot.
    type: str
    choices: [auto, systemd, systemd_user, supervisor]
    default: auto
  user:
    description:
      - Unprivileged user that the server runs as under V(systemd). With the other managers it runs as the connecting
        user.
    type: str
    default: llamacpp
  wait_timeout:
    description:
      - Seconds to wait until the server is ready.
      - The default depends on the size of the model, from two minutes to about 50 minutes for 193 GB. If the server
        ends by itself, the module does not wait any longer.
    type: int
  gate:
    description:
      - What the module proves before a change is done.
      - V(health) - the server is ready and reports what you asked for. This covers its model, build, names, sampling
        defaults, slots and context, and whether it asks for a key. The model gets no request.
      - V(completion) - also one completion, and all O(gate_prompts).
      - V(full) - also one completion for each slot in parallel, a long prompt, the token rate, and the use of the GPUs
        as NVML shows it.
    type: str
    choices: [health, completion, full]
    default: full
  gate_prompts:
    description:
      - Prompts of your own whose answers have to match a pattern. The module sends them at temperature 0, one after the
        other.
    type: list
    elements: dict
    default: []
    suboptions:
      prompt:
        description:
          - The prompt.
        type: str
        required: true
      pattern:
        description:
          - Python regular expression that has to match somewhere in the answer. It does not see the reasoning.
        type: str
        required: true
      timeout:
        description:
          - Seconds within which the answer has to be complete, 1 to 3600.
        type: int
        default: 60
  gate_prompt_tokens:
    description:
      - Length of the long prompt in tokens, for O(gate=full). V(0) sends none.
      - The default is a quarter of a slot's context. Without O(gpus) it is at most 512, because a CPU would need
        minutes.
      - The prompt may take five minutes, and one second more for every ten tokens.
    type: int
  max_slowdown:
    description:
      - How much lower than that of the last release the token rate may be, such as V(10%), for O(gate=full).
      - The module measures a rate that is too low three times and takes the best one. The first release has nothing to
        compare with.
    type: str
  drain_timeout:
    description:
      - Seconds that requests in flight get before the server stops. During this time it accepts no new requests. The
        module then cuts the remaining requests and warns how many there were.
      - This applies to every stop, also by C(run.sh) and at a shutdown of the host as far as that waits. A change of
        this option alone does not restart the server.
    type: int
    default: 60
  rollback:
    description:
      - What to do if a changed instance does not pass the gate. The task fails in both cases, and the evidence of the
        failure is kept in C(failures) in the instance's folder.
      - V(true) - start and prove the last release again.
      - V(false) - leave the instance stopped, for you to examine it. It does not start at boot.
    type: bool
    default: true
  lock_timeout:
    description:
      - Seconds to wait for another run that works on the same instance. Then the task fails and says which run that is
        and since when it runs. A run that dies releases its lock.
      - Check mode does not wait.
    type: int
    default: 60
requirements:
  - apptainer or singularity on the host
  - requests on the host, in C(<home>/venv) or in the Python that runs the module; only to start a server and to resolve
    or pull an image
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - In check mode, a missing image or model is a warning, because an earlier task may provide it.
      - The sha256 of an image that Apptainer builds from C(docker://) is not known before the build.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - If O(state=restarted), every run restarts the server.
seealso:
  - module: gpufleet.llamacpp.gguf_model
  - module: gpufleet.llamacpp.sif_image
  - module: gpufleet.llamacpp.llamacpp_instance_info
author:
  - gpufleet contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: GLM-4.7-Flash on four GPUs, reachable from the network with a key
  gpufleet.llamacpp.llamacpp_instance:
    name: 4403-glm-4.7-flash-q4
    image: shared/llamacpp-cuda-complete.sif
    model: /data/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf
    binds:
      - /data/models:/models
    host: 0.0.0.0
    port: 4403
    api_key_file: /home/operator/llamacpp/4403.keys
    gpus: [0, 1, 2, 3]
    gpu_layers: 99
    context_size: 65536
    threads: 32
    args:
      - --jinja
      - --fit on
      - --temp 1.0
      - --top-p 0.95
      - --min-p 0.01
      - --repeat-penalty 1.0

- name: A small model on the CPU, with an image from a web server
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: https://files.example.org/llamacpp.sif
    image_sha256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    model: /data/models/SmolLM2-135M-Instruct.Q4_1.gguf
    port: 8080

- name: Follow a tag in a private registry; roll back if the new image does not pass the gate
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: oras://registry.example.org/gpu/llamacpp:stable
    image_auth_file: ~/.docker/config.json
    pull: always
    model: /data/models/SmolLM2-135M-Instruct.Q4_1.gguf
    port: 8080

- name: Accept a new quantization only if it answers correctly and is not much slower
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: shared/llamacpp.sif
    model: /data/models/SmolLM2-135M-Instruct.Q8_0.gguf
    port: 8080
    gate_prompts:
      - prompt: What is the capital of France?
        pattern: Paris
        timeout: 30
    max_slowdown: 10%

- name: Preview a changed context
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: shared/llamacpp.sif
    model: /data/models/SmolLM2-135M-Instruct.Q4_1.gguf
    port: 8080
    context_size: 4096
  check_mode: true
  diff: true

- name: Start an instance as it is recorded on the host
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    state: started

- name: Stop an instance; it does not start at boot
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    state: stopped

- name: Remove an instance; image and model are kept
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    state: absent
"""

RETURN = r"""
actions:
  description: What the module did, or would do in check mode, in order.
  type: list
  elements: str
  returned: success
  sample: [Update instance.json, Restart llama-server and prove that it works]
reasons:
  description: Why, each reason once.
  type: list
  elements: str
  returned: success
  sample: ["context_size: 65536 -> 32768"]
instance:
  description:
    - The instance as it is now. RV(gpufleet.llamacpp.llamacpp_instance_info#module:instances) describes its keys.
  type: dict
  returned: success
  sample:
    name: 4403-glm-4.7-flash-q4
    state: running
    manager: supervisor
    pid: 4711
    health: ok
    url: http://127.0.0.1:4403
memory:
  description: What the server needs on each of its GPUs, in bytes, and what is available there.
  type: list
  elements: dict
  returned: if the module checked the memory, which it does before each start
  contains:
    gpu:
      description: Index of the GPU.
      type: int
      returned: always
    uuid:
      description: Its UUID.
      type: str
      returned: always
    model:
      description: Weights on this GPU.
      type: int
      returned: always
    context:
      description: Part of the KV cache on this GPU.
      type: int
      returned: always
    compute:
      description: Buffers for computations.
      type: int
      returned: always
    cuda:
      description: What CUDA itself needs.
      type: int
      returned: always
    margin:
      description: What is added to an estimate. 0 if the image's own C(llama-fit-params) computed the need.
      type: int
      returned: always
    need:
      description: The sum of these.
      type: int
      returned: always
    free:
      description: What is free now according to NVML.
      type: int
      returned: always
    given_back:
      description: What the running server of this instance frees when it stops.
      type: int
      returned: always
    others:
      description: What other declared instances will still use. Less than 0 if they free more.
      type: int
      returned: always
    left:
      description: What stays free.
      type: int
      returned: always
    short:
      description: How much is missing. 0 if the server fits.
      type: int
      returned: always
memory_source:
  description: What computed the need, V(llama-fit-params) of the image or an V(estimate) from the model's header.
  type: str
  returned: with RV(memory)
  sample: llama-fit-params
problems:
  description: Why the module refused the task, every problem at once. C(msg) has the same as text.
  type: list
  elements: dict
  returned: if the task is refused
  contains:
    option:
      description: The option that the problem is about. Empty if it is about none.
      type: str
      returned: always
      sample: gpus
    problem:
      description: What was found and what was expected.
      type: str
      returned: always
      sample: this host has no GPU 42
    remedy:
      description: What to do.
      type: str
      returned: always
      sample: Choose from 0, 1, 2 and 3.
    subject:
      description: The instance or the model, if a result is about several.
      type: str
      returned: if it is about one of several
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._instance.module import run_module
from ..module_utils._spec.options import INSTANCE


def main() -> None:
    run_module(AnsibleModule(argument_spec=INSTANCE, supports_check_mode=True))


if __name__ == "__main__":
    main()
