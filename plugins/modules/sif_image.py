#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sif_image
short_description: Have a Singularity/Apptainer image on a host, whole and verified
version_added: 0.1.0
description:
  - Brings a SIF file to a path on the host, from an address, a registry or another place on that host, and tells what
    is in it, such as where C(llama-server) lies and which build it is.
  - What the path held before stays in place, untouched, until the new file is whole and verified. The new one then
    takes its place at once; a server that has the old one open keeps it.
  - What was verified and learned is recorded in the hidden folder C(.sif_image) beside the file. The next run reads
    that record only. It asks no registry and runs nothing, unless O(pull=always) wants to know whether a tag has moved.
  - Files from C(https://) and C(oras://) are fetched in parallel and resumed after any interruption. C(docker://) and
    C(library://) are left to Apptainer, whose temporary files and cache lie beside O(path) and are removed afterwards.
options:
  path:
    description:
      - The image's absolute path on the host. A missing folder is created.
    type: path
    required: true
  state:
    description:
      - V(present) has the image there, V(absent) removes it and its record.
      - V(absent) is refused while an instance of O(home) has the image, or had it in its last release, and while a
        process has it open, as far as this user can see that; unless O(force=true).
      - Without O(src), V(present) only verifies that the image is there, and fails where it is not.
    type: str
    choices: [present, absent]
    default: present
  force:
    description:
      - Whether V(absent) also removes an image that is in use. A server that runs from it keeps running until it is
        started again, and an instance that had it in its last release cannot go back to that.
    type: bool
    default: false
  src:
    description:
      - Where the image comes from, if the host does not have it yet.
      - An absolute path is a SIF file on the host. A changed one is copied again, unless O(sha256) says what is wanted.
      - V(https://...) or V(http://...) is the address of a SIF file.
      - V(oras://registry/name:tag) is a SIF file in an OCI registry, as C(apptainer push) puts it there. The digest of
        its layer is the sha256 of the file, so it is verified without O(sha256).
      - V(docker://registry/name:tag) is a container image that Apptainer converts. The file is another one each time,
        so the digest of the manifest is what is recorded and compared.
      - V(library://entity/collection/container:tag) is an image in a library, as Apptainer is configured for it.
      - With V(@sha256:<digest>) behind the name, C(oras://) and C(docker://) mean exactly one image, and a re-run asks
        nobody. RV(image.digest) is what to write there.
    type: str
  sha256:
    description:
      - The digest of the wanted file, of 64 hexadecimal digits. Recommended for V(https://...) and V(library://...),
        where nothing else tells every damage. Not for V(docker://...).
    type: str
  pull:
    description:
      - When to bring the image from O(src).
      - V(missing) brings it where it is not there, is not the one that O(sha256) or a digest says, or came from another
        O(src).
      - V(always) also asks at every run whether the tag or address has another image now. That is one request, and none
        where O(sha256) or a digest says which image is wanted.
      - V(never) brings nothing, and fails where something would have to be brought.
    type: str
    choices: [missing, always, never]
    default: missing
  verify:
    description:
      - When the content of a file that is already there is read again.
      - V(changed) reads it when its size, times or inode are not those recorded.
      - V(always) reads it at every run, which finds what a disk lost silently. It takes about a second for each GB.
    type: str
    choices: [changed, always]
    default: changed
  verify_signature:
    description:
      - Whether the image has to be signed with the key in O(public_key) (C(apptainer verify)). One that is not is never
        put in place.
    type: bool
    default: false
  public_key:
    description:
      - The file on the host that holds the public key for O(verify_signature), in PEM or as an armored PGP key.
    type: path
  username:
    description:
      - The user for the registry or the web server of O(src).
    type: str
  password:
    description:
      - The password of O(username), or a token that stands for it. It is sent to that server, and to the token server
        that a registry names, over TLS.
    type: str
  auth_file:
    description:
      - A file on the host with users and passwords for registries, as C(docker login) and C(apptainer registry login)
        write it, such as V(~/.docker/config.json) or V(~/.apptainer/docker-config.json).
      - Mutually exclusive with O(username).
    type: path
  no_https:
    description:
      - Whether the registry of an V(oras://...) or V(docker://...) speaks plain HTTP, as one inside a site may do.
    type: bool
    default: false
  ca_path:
    description:
      - The certificates that servers are trusted by, as a file or a folder on the host. The default is those of the
        host's Python environment. Apptainer itself uses those of the system.
    type: path
  connections:
    description:
      - How many connections fetch one file at the same time, from 1 to 64.
    type: int
    default: 8
  max_rate:
    description:
      - The most bytes to fetch in a second, over all connections, such as V(50M). Without it there is no limit.
    type: str
  home:
    description:
      - Where instances live on this host. The Python environment in C(venv) there has the library that fetching needs.
      - The default is V(/opt/llamacpp) for root, and V(~/llamacpp) for another user.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - What is inside an image is not known before it is there, so RV(image) has less in it then.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - requests (on the host; where something is fetched or asked over the network)
  - apptainer or singularity (on the host; for docker, library and signatures, and to tell what is in the image)
notes:
  - While an image is brought, a line for each host tells on standard error how far it is. With a verbosity below zero
    (C(ANSIBLE_VERBOSITY=-1)), in check mode and with C(no_log) there is none.
  - It is brought by a job on the host, which a lost connection does not end. The connection is tried again for five
    minutes; the job then goes on by itself, and the next run uses what has come by then.
  - With C(async) of its own, the task is left to Ansible, and tells nothing before its end.
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance
  - module: gpufleet.llamacpp.gguf_model
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Have an image, fetched once and verified
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp-cuda-complete.sif
    src: https://images.example.com/llamacpp-cuda-complete.sif
    sha256: e5abb2992105944b70a283983862b32b648da6995e84de18863e6aef35559404
  register: cuda

- name: Show what it is
  ansible.builtin.debug:
    msg: "llama-server {{ cuda.image.build }} is at {{ cuda.image.server_path }} in it"

- name: Follow a tag in a registry, and replace the image whenever the tag moves
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp.sif
    src: oras://registry.example.com/gpu/llamacpp:stable
    pull: always
    auth_file: ~/.docker/config.json

- name: Have exactly one image of a registry
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp.sif
    src: oras://registry.example.com/llamacpp@sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9

- name: Have Apptainer convert the project's own container image
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llama.cpp-server.sif
    src: docker://ghcr.io/ggml-org/llama.cpp:server-cuda

- name: Take only what was signed with our key
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp.sif
    src: /mnt/share/images/llamacpp.sif
    verify_signature: true
    public_key: /etc/pki/llamacpp/signer.pem

- name: Remove an image
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp.sif
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: ["Pull oras://registry.example.com/gpu/llamacpp:stable to /opt/llamacpp/shared/llamacpp.sif"]
reasons:
  description: Why it was done.
  returned: success
  type: list
  elements: str
  sample: [/opt/llamacpp/shared/llamacpp.sif is not there]
image:
  description:
    - The image as it is on the host, or as it would be in check mode. What is not known is V(none).
  returned: success
  type: dict
  contains:
    path:
      description: Where the image lies.
      type: str
      sample: /opt/llamacpp/shared/llamacpp.sif
    state:
      description: Whether it is there.
      type: str
      sample: present
    size:
      description: Its size in bytes.
      type: int
      sample: 41238528
    sha256:
      description: The digest of the file.
      type: str
      sample: e5abb2992105944b70a283983862b32b648da6995e84de18863e6aef35559404
    source:
      description: Where it came from, without user, password and query; V(none) where that is not known.
      type: str
      sample: oras://registry.example.com/gpu/llamacpp:stable
    digest:
      description:
        - The digest of the manifest in the registry, which pins it as V(oras://registry/name@<digest>).
          V(none) for what is from no registry.
      type: str
      sample: sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
    labels:
      description: The labels of the image.
      type: dict
      sample: {"org.opencontainers.image.title": "llama.cpp"}
    server_path:
      description: Where C(llama-server) lies inside the image.
      type: str
      sample: /opt/llama.cpp/build/bin/llama-server
    build:
      description: What C(llama-server --version) says.
      type: str
      sample: 0.7.0 (build 11669, commit Debian)
    options_digest:
      description: The sha256 over the sorted names of all options in C(llama-server --help), one a line.
      type: str
      sample: 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b
transfer:
  description: What it took to bring the image. What Apptainer or a copy brings does not count as bytes fetched.
  returned: when an image was brought
  type: dict
  contains:
    bytes_fetched:
      description: Bytes received in this run.
      type: int
      sample: 41238528
    bytes_resumed:
      description: Bytes that an earlier, interrupted run had already received.
      type: int
      sample: 0
    retries:
      description: How often a request was repeated.
      type: int
      sample: 0
    seconds:
      description: How long it took.
      type: float
      sample: 1.9
    rate:
      description: Bytes received in a second.
      type: int
      sample: 21704488
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._artifact.image.module import run_module
from ..module_utils._artifact.image.options import EXCLUSIVE, IMAGE, REQUIRED_IF, TOGETHER
from ..module_utils._artifact.module import home_of
from ..module_utils._instance import in_use
from ..module_utils._llama.probe import FactsCache


def main() -> None:
    module = AnsibleModule(
        argument_spec=IMAGE,
        required_if=REQUIRED_IF,
        required_together=TOGETHER,
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    run_module(module, in_use.problems, FactsCache(home_of(module), writes=not module.check_mode).put)


if __name__ == "__main__":
    main()
