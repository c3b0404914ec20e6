#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llamacpp_instance
short_description: Run a llama-server out of a Singularity/Apptainer image, and prove that it works
version_added: 0.1.0
description:
  - Deploys one instance, which is one C(llama-server) on one host, with a name, a port, an image, a model, GPUs and
    arguments.
  - The server is kept alive by a manager that the host has already, with root or without. Between the manager and the
    container stands a small runner that waits for requests in flight before it stops the server, and has it started
    again when it hangs.
  - An instance counts as started only when it was proven, as far as O(gate) asks. What was proven is recorded on the
    host as the release, with the token rate and the time to the first token.
  - The server is restarted only when the options, the image or the model really changed; RV(reasons) tells why.
  - If a changed instance does not pass, the last release is started again and the task fails with the cause.
  - On the host, C(run.sh start|stop|restart|status|logs) in the instance's folder works by hand, without Ansible.
options:
  name:
    description:
      - Name of the instance, and of its folder under O(home). Letters, digits, dot, dash and underscore.
    type: str
    required: true
  state:
    description:
      - V(started) - the instance runs as described and was proven. It is restarted if anything about it changed.
      - V(restarted) - like V(started), and it is restarted in any case.
      - With one of these two and neither O(model) nor O(port), the instance is the one that the host has already, as it
        is recorded there. Of the other options that describe it only O(image) is looked at then.
      - V(present) - everything is in place, but nothing is started, stopped or restarted. Whether it starts at boot
        stays as it is; a new one does not.
      - V(stopped) - the instance does not run, and does not start at boot. Its options are not looked at.
      - V(absent) - the instance, its folder and its unit are gone. Image and model stay.
    type: str
    choices: [started, restarted, present, stopped, absent]
    default: started
  home:
    description:
      - Folder on the host that holds the instances.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for any other user.
    type: path
  image:
    description:
      - Path of a SIF file on the host, absolute or below O(home); or an address as M(gpufleet.llamacpp.sif_image) takes
        it, C(https://), C(http://), C(oras://), C(docker://) or C(library://).
      - An image from an address is put into C(<home>/shared), with the beginning of its digest in its name. So the
        image of the last release stays where it is, and the instance can go back to it. The digest is that of the
        file; with C(docker://) that of the manifest, and with C(library://) and no O(image_sha256) that of the address.
      - With C(@sha256:<digest>) behind the name, C(oras://) and C(docker://) mean exactly one image. What a tag came to
        is in RV(instance) as C(image.digest).
      - Required for an instance that is not on the host yet, or that is to be another one than is recorded.
    type: str
  image_sha256:
    description:
      - The sha256 that the image's file must have; one that has another is refused.
      - Required with C(http://) and C(https://), where nothing else tells every damage. Not for C(docker://).
    type: str
  pull:
    description:
      - When to pull an image that is given by address.
      - V(missing) - if none from that address is on the host. What a tag means is asked then, and not again.
      - V(always) - also where the tag means another image now. That is one request at every run, and none where
        O(image_sha256) or a digest in O(image) says which one is wanted.
      - V(never) - do not pull; the image has to be there.
    type: str
    choices: [missing, always, never]
    default: missing
  image_auth_file:
    description:
      - A file on the host with users and passwords for registries, as C(docker login) and C(apptainer registry login)
        write it, for an C(oras://) or C(docker://) image that is not for everybody.
    type: path
  image_no_https:
    description:
      - Whether the registry of an C(oras://) or C(docker://) image speaks plain HTTP, as one inside a site may do.
    type: bool
    default: false
  image_ca_path:
    description:
      - The certificates that the registry or the web server is trusted by, as a file or a folder on the host. The
        default is those of the host's Python environment.
    type: path
  model:
    description:
      - Absolute path of the GGUF file on the host; of the first part where the model is split.
      - M(gpufleet.llamacpp.gguf_model) brings it there.
      - Required for an instance that is not on the host yet, or that is to be another one than is recorded.
    type: path
  alias:
    description:
      - Name under which the API shows the model (C(--alias)).
    type: str
  host:
    description:
      - Address to listen on (C(--host)).
    type: str
    default: 127.0.0.1
  port:
    description:
      - TCP port to listen on (C(--port)), 1 to 65535.
      - Required for an instance that is not on the host yet, or that is to be another one than is recorded.
    type: int
  gpus:
    description:
      - GPUs that the instance may use, as indexes in the order of C(nvidia-smi) or as UUIDs.
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
      - Size of the context in tokens (C(-c)); 0 is the length that the model was trained with.
    type: int
  threads:
    description:
      - Number of CPU threads (C(-t)).
    type: int
  parallel:
    description:
      - Number of slots, that is requests that are worked on at once (C(-np)). Without it llama-server decides, and all
        slots share the whole context.
      - A number divides O(context_size) by it, so a slot of 65536 tokens and 4 slots has 16384, unless O(args) has
        C(--kv-unified).
    type: int
    version_added: 0.2.0
  args:
    description:
      - Further options of llama-server, in the order in which they are to stand on its command line.
      - One entry is one option with its value, such as V(--temp 1.0). What follows the first blank is one value, taken
        as it stands; no quoting is needed or looked at.
      - An option with two values takes the second one as an entry of its own.
      - What an option of this module stands for is said there and refused here.
      - Names and values are checked against what the llama-server in the image lists, before anything is touched.
    type: list
    elements: str
    default: []
  allow_options:
    description:
      - Options of llama-server that give whoever can send a request more than the model. In O(args) they are refused
        unless they stand here. These are C(--tools), C(--agent), C(--mcp-servers-config), C(--mcp-servers-json),
        C(--ui-mcp-proxy), C(--rpc), C(--slot-save-path), C(--media-path), C(--path), C(--props) and
        C(--log-prompts-dir).
      - The same holds for the variables in O(env) that stand for them.
    type: list
    elements: str
    default: []
  env:
    description:
      - Environment variables for llama-server. It gets no others from the host.
      - They stand in the record and in C(run.sh) on the host, so they are no place for a secret.
    type: dict
    default: {}
  binds:
    description:
      - Folders or files of the host that the container sees, as C(/on/host:/in/container) with an optional C(:ro).
      - If none of them covers O(model), its folder is bound to C(/models), read-only.
    type: list
    elements: str
    default: []
  api_key_file:
    description:
      - File on the host with one API key a line (C(--api-key-file)). Requests without one of them are refused.
      - A file without a key is refused, because llama-server would then serve everybody.
    type: path
  min_build:
    description:
      - The lowest build of llama.cpp that the image may have, such as V(11434), as C(llama-server --version) tells it.
      - What runs already is held against it, too. Without it, a build with known holes is a warning when something
        about the instance changes.
    type: int
  server_path:
    description:
      - Path of llama-server inside the image.
      - By default it is looked for on the image's own E(PATH) and in the usual places.
    type: str
  manager:
    description:
      - What keeps the instance running.
      - V(auto) - V(systemd) for root, V(systemd_user) for a user who may linger, else V(supervisor). What was once
        chosen for an instance stays.
      - V(systemd) - a unit of the host. Needs root; the server runs as O(user).
      - V(systemd_user) - a unit of the connecting user, who has to linger (C(loginctl enable-linger)).
      - V(supervisor) - supervisord from C(<home>/venv), started at boot by the user's crontab.
    type: str
    choices: [auto, systemd, systemd_user, supervisor]
    default: auto
  user:
    description:
      - Unprivileged user that the server runs as under V(systemd). The others run it as the connecting user.
    type: str
    default: llamacpp
  wait_timeout:
    description:
      - Seconds that the server may take until it is ready.
      - By default it grows with the model, from two minutes to about 50 for 193 GB. A server that ends by itself ends
        the waiting at once.
    type: int
  gate:
    description:
      - What has to be proven before a change counts as done.
      - V(health) - it is ready, and what it says of itself is what was asked for. These are its model, build, names,
        sampling defaults, slots and context, and that it asks for the key. The model is asked nothing.
      - V(completion) - also one answer, and those to O(gate_prompts).
      - V(full) - also as many answers at once as there are slots, a long prompt, the token rate, and the use of the
        GPUs that NVML shows.
    type: str
    choices: [health, completion, full]
    default: full
  gate_prompts:
    description:
      - Prompts of your own that have to be answered well, at temperature 0, one after the other.
    type: list
    elements: dict
    default: []
    suboptions:
      prompt:
        description:
          - What the model is asked.
        type: str
        required: true
      pattern:
        description:
          - Regular expression of Python's that has to match somewhere in the answer. Thoughts are no part of it.
        type: str
        required: true
      timeout:
        description:
          - Seconds within which the answer has to be complete, 1 to 3600.
        type: int
        default: 60
  gate_prompt_tokens:
    description:
      - Length of the long prompt in tokens, with O(gate=full). V(0) sends none.
      - The default is a quarter of what a slot holds; without O(gpus) at most 512, because a CPU would take minutes.
      - It may take five minutes and one second more for every ten tokens.
    type: int
  max_slowdown:
    description:
      - By how much the token rate may be below that of the last release, such as V(10%), with O(gate=full).
      - What seems too slow is measured three times, and the best one counts. The first release is compared with none.
    type: str
  drain_timeout:
    description:
      - Seconds that requests in flight get to end before the server is stopped. Meanwhile it takes no new ones. What is
        still running then is cut, and a warning says how many that were.
      - It holds for every stop, also by C(run.sh) and at a shutdown of the host as far as that waits. Changing it alone
        restarts nothing.
    type: int
    default: 60
  rollback:
    description:
      - What happens when a changed instance does not pass. The task fails in either case, and the evidence of the
        failure stays in C(failures) in the instance's folder.
      - V(true) - the last release is started and proven again.
      - V(false) - the instance is stopped and does not start at boot, for somebody to look at it.
    type: bool
    default: true
  lock_timeout:
    description:
      - Seconds to wait for another run that is at work on the same instance. Then the task fails, and says who that is
        and since when. A run that dies leaves no lock behind.
      - In check mode nothing is waited for.
    type: int
    default: 60
requirements:
  - apptainer or singularity on the host
  - requests, on the host, in C(<home>/venv) or in the Python that runs the module; only when something is started or
    an image is asked for or pulled
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - An image or a model that is not on the host yet is a warning in check mode, since an earlier task may bring it.
      - What Apptainer will build of a C(docker://) image has no sha256 before it is there.
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
- name: GLM-4.7-Flash on four GPUs, port 4403
  gpufleet.llamacpp.llamacpp_instance:
    name: 4403-glm-4.7-flash-q4
    image: shared/llamacpp-cuda-complete.sif
    model: /data/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf
    binds:
      - /data/models:/models
    host: 0.0.0.0
    port: 4403
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

- name: A small model on the CPU, with a key, out of an image that is pulled
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: https://files.example.org/llamacpp.sif
    image_sha256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    model: /data/models/SmolLM2-135M-Instruct.Q4_1.gguf
    port: 8080
    api_key_file: /home/operator/llamacpp/smol.keys

- name: Follow a tag in the site's own registry; a new image that does not work is left for the one before
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: oras://registry.example.org/gpu/llamacpp:stable
    image_auth_file: ~/.docker/config.json
    pull: always
    model: /data/models/SmolLM2-135M-Instruct.Q4_1.gguf
    port: 8080

- name: A new quantization has to know the answer, and may not be much slower
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

- name: What a changed context would do
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    image: shared/llamacpp.sif
    model: /data/models/SmolLM2-135M-Instruct.Q4_1.gguf
    port: 8080
    context_size: 4096
  check_mode: true
  diff: true

- name: Start it as it is recorded on the host, whatever the inventory says
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    state: started

- name: Stop it, and keep it stopped over a reboot
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    state: stopped

- name: Take it away; image and model stay
  gpufleet.llamacpp.llamacpp_instance:
    name: smol
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
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
  description: What the server takes on each GPU that it asks for, in bytes, against what is there.
  type: list
  elements: dict
  returned: when it was looked at, which is before each start
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
      description: Its part of the KV cache.
      type: int
      returned: always
    compute:
      description: Scratch memory of a computation.
      type: int
      returned: always
    cuda:
      description: What CUDA itself takes.
      type: int
      returned: always
    margin:
      description: What is added to an estimate. 0 where the image's own C(llama-fit-params) told.
      type: int
      returned: always
    need:
      description: The sum of these.
      type: int
      returned: always
    free:
      description: What is free now, as NVML tells.
      type: int
      returned: always
    given_back:
      description: What the instance's own server gives back when it is stopped.
      type: int
      returned: always
    others:
      description: What other declared instances are yet to take. Less than 0 where they give back more.
      type: int
      returned: always
    left:
      description: What is left then.
      type: int
      returned: always
    short:
      description: How much is missing to what has to be left. 0 where it fits.
      type: int
      returned: always
memory_source:
  description: Who told what it takes, V(llama-fit-params) of the image or V(estimate) from the model's header.
  type: str
  returned: with RV(memory)
  sample: llama-fit-params
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._instance.module import run_module
from ..module_utils._spec.options import INSTANCE


def main() -> None:
    run_module(AnsibleModule(argument_spec=INSTANCE, supports_check_mode=True))


if __name__ == "__main__":
    main()
