#!/usr/bin/python
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sif_image
short_description: Pull and verify Apptainer/Singularity images
version_added: 0.1.0
description:
  - Puts a SIF file at a path on the host, from a web server, a registry or a file on the host, and returns what it
    contains, such as the path and the build of C(llama-server).
  - The previous file at the path stays untouched until the new one is verified, and is then replaced atomically. A
    server that has the previous file open keeps it.
  - The module records what it verified in the hidden folder C(.sif_image) next to the file. The next run reads only
    that record. It queries no registry and starts no container, unless O(pull=always) has to check whether a tag moved.
  - Downloads from C(https://) and C(oras://) use several connections, and resume after any interruption. For
    C(docker://) and C(library://) the module runs Apptainer, with temporary files and a cache next to O(path) that are
    removed afterwards.
options:
  path:
    description:
      - The image's absolute path on the host. A missing folder is created.
    type: path
    required: true
  state:
    description:
      - V(present) puts the image there. V(absent) removes it and its record.
      - V(absent) is refused if an instance of O(home) uses the image or used it in its last release, or if this user
        can see that a process has it open; unless O(force=true).
      - Without O(src), V(present) verifies the image, and fails if it is missing.
    type: str
    choices: [present, absent]
    default: present
  force:
    description:
      - Whether V(absent) also removes an image that is in use. A server keeps running from it until its next start. An
        instance cannot roll back to a release that used it.
    type: bool
    default: false
  src:
    description:
      - The source of the image, if the host does not have it.
      - An absolute path is a SIF file on the host. The module copies it again when it changes, unless O(sha256) selects
        the content.
      - V(https://...) or V(http://...) is the address of a SIF file.
      - V(oras://registry/name:tag) is a SIF file in an OCI registry, as C(apptainer push) stores it. The digest of its
        layer is the sha256 of the file, so it is verified without O(sha256).
      - V(docker://registry/name:tag) is a container image that Apptainer converts. Each conversion makes a different
        file, so the module records and compares the digest of the manifest.
      - V(library://entity/collection/container:tag) is an image in a library, as Apptainer is configured for it.
      - C(oras://) and C(docker://) addresses that end with C(@sha256:<digest>) select exactly one image, and later runs
        send no requests. RV(image.digest) returns that digest.
    type: str
  sha256:
    description:
      - The sha256 of the file, 64 hexadecimal digits. Recommended for V(https://...) and V(library://...), because
        nothing else detects all damage. Not for V(docker://...).
    type: str
  pull:
    description:
      - When to pull the image from O(src).
      - V(missing) - if it is missing, differs from O(sha256) or a digest, or came from another O(src).
      - V(always) - also if the tag or address has another image now. This is one request for each run, and none if
        O(sha256) or a digest selects the image.
      - V(never) - never. The task fails if a pull would be necessary.
    type: str
    choices: [missing, always, never]
    default: missing
  verify:
    description:
      - When to read the content of a file again that is already there.
      - V(changed) - if its size, times or inode differ from the record.
      - V(always) - in every run, which finds silent corruption of the disk. It takes about a second for each GB.
    type: str
    choices: [changed, always]
    default: changed
  verify_signature:
    description:
      - Whether the image has to be signed with the key in O(public_key) (C(apptainer verify)). The module does not
        install an image without that signature.
    type: bool
    default: false
  public_key:
    description:
      - The file on the host with the public key for O(verify_signature), in PEM or as an armored PGP key.
    type: path
  username:
    description:
      - The user name for the registry or the web server of O(src).
    type: str
  password:
    description:
      - The password of O(username), or a token. The module sends it over TLS to that server, and to the token server
        that a registry names.
    type: str
  auth_file:
    description:
      - A file on the host with credentials for registries, as C(docker login) and C(apptainer registry login) write it,
        such as V(~/.docker/config.json) or V(~/.apptainer/docker-config.json).
      - Mutually exclusive with O(username).
    type: path
  no_https:
    description:
      - Whether the registry of an V(oras://...) or V(docker://...) image uses plain HTTP.
    type: bool
    default: false
  ca_path:
    description:
      - File or folder on the host with CA certificates. The default is those of the host's Python environment.
        Apptainer itself uses those of the system.
    type: path
  connections:
    description:
      - How many connections to use at the same time, 1 to 64.
    type: int
    default: 8
  max_rate:
    description:
      - The rate limit in bytes per second over all connections, such as V(50M). By default there is none.
    type: str
  home:
    description:
      - Folder on the host that contains the instances. The Python environment in its C(venv) has the library that
        downloads need.
      - The default is C(/opt/llamacpp) for root and C(~/llamacpp) for other users.
    type: path
extends_documentation_fragment:
  - gpufleet.llamacpp.attributes
  - gpufleet.llamacpp.attributes.actiongroup
attributes:
  check_mode:
    support: full
    details:
      - The content of an image is not known before it is there, so RV(image) contains less.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - requests on the host, for downloads and requests to a registry
  - apptainer or singularity on the host, for docker, library and signatures, and to read what the image contains
notes:
  - During a download, a progress line for each host appears on standard error. It does not appear with a verbosity
    below zero (C(ANSIBLE_VERBOSITY=-1)), in check mode and with C(no_log).
  - A job on the host does the download. A lost connection does not end the job. The module tries to connect again for
    five minutes. After that the job continues, and the next run uses what it has fetched.
  - With C(async), Ansible runs the task, and there is no progress line.
seealso:
  - module: gpufleet.llamacpp.llamacpp_instance
  - module: gpufleet.llamacpp.gguf_model
author:
  - gpufleet.llamacpp contributors (@gpufleet)
"""

EXAMPLES = r"""
- name: Download an image from a web server
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp-cuda-complete.sif
    src: https://images.example.com/llamacpp-cuda-complete.sif
    sha256: e5abb2992105944b70a283983862b32b648da6995e84de18863e6aef35559404
  register: cuda

- name: Show its properties
  ansible.builtin.debug:
    msg: "llama-server {{ cuda.image.build }} is at {{ cuda.image.server_path }} in it"

- name: Follow a tag in a registry, and replace the image when the tag moves
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp.sif
    src: oras://registry.example.com/gpu/llamacpp:stable
    pull: always
    auth_file: ~/.docker/config.json

- name: Pull exactly one image from a registry
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llamacpp.sif
    src: oras://registry.example.com/llamacpp@sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9

- name: Convert the container image of llama.cpp with Apptainer
  gpufleet.llamacpp.sif_image:
    path: /opt/llamacpp/shared/llama.cpp-server.sif
    src: docker://ghcr.io/ggml-org/llama.cpp:server-cuda

- name: Accept only an image that is signed with our key
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
  description: What the module did, or would do in check mode.
  returned: success
  type: list
  elements: str
  sample: ["Pull oras://registry.example.com/gpu/llamacpp:stable to /opt/llamacpp/shared/llamacpp.sif"]
reasons:
  description: Why, each reason once.
  returned: success
  type: list
  elements: str
  sample: [/opt/llamacpp/shared/llamacpp.sif is not there]
image:
  description:
    - The image as it is on the host, or would be in check mode. Unknown values are V(none).
  returned: success
  type: dict
  contains:
    path:
      description: The image's path.
      type: str
      sample: /opt/llamacpp/shared/llamacpp.sif
    state:
      description: Whether the image exists.
      type: str
      sample: present
    size:
      description: Its size in bytes.
      type: int
      sample: 41238528
    sha256:
      description: The sha256 of the file.
      type: str
      sample: e5abb2992105944b70a283983862b32b648da6995e84de18863e6aef35559404
    source:
      description: The origin of the image, without user, password and query. V(none) if it is not known.
      type: str
      sample: oras://registry.example.com/gpu/llamacpp:stable
    digest:
      description:
        - The digest of the manifest in the registry, for V(oras://registry/name@<digest>). V(none) if the image did not
          come from a registry.
      type: str
      sample: sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
    labels:
      description: The labels of the image.
      type: dict
      sample: {"org.opencontainers.image.title": "llama.cpp"}
    server_path:
      description: The path of C(llama-server) in the image.
      type: str
      sample: /opt/llama.cpp/build/bin/llama-server
    build:
      description: The output of C(llama-server --version).
      type: str
      sample: 0.7.0 (build 11669, commit Debian)
    options_digest:
      description: The sha256 of the sorted names of all options in C(llama-server --help), one a line.
      type: str
      sample: 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b
transfer:
  description: Statistics of the download. What Apptainer pulls or a copy reads does not count as bytes fetched.
  returned: if the image was pulled or copied
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
      sample: 21704488
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

from collections.abc import Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes

from ..module_utils._artifact.file_record import FileChanged
from ..module_utils._artifact.image.apply import Applied, apply, keep
from ..module_utils._artifact.image.fetch import Network
from ..module_utils._artifact.image.observe import describe, foreseen, observe, shown
from ..module_utils._artifact.image.plan import ImageError, Remote, SeenImage, Wanted, plan, want
from ..module_utils._artifact.registry.auth import Credentials, credentials_from
from ..module_utils._fetch.progress import DEFERRED, ProgressFile, begin, is_deferred
from ..module_utils._fetch.source import FetchError
from ..module_utils._host.files import let_servers_read
from ..module_utils._host.layout import default_home
from ..module_utils._host.python import ensure_library, prefer_library
from ..module_utils._instance import in_use
from ..module_utils._llama.probe import FactsCache
from ..module_utils._result import Problem, diff_of, failure, result


def network_of(module: AnsibleModule, wanted: Wanted, problems: list[str], progress: ProgressFile) -> Network:
    """How the sources are reached; adds to ``problems`` what is wrong with the options that say so."""
    params = module.params
    credentials, max_rate = None, None
    reference = wanted.origin.reference if wanted.origin else None
    if params["username"]:
        credentials = Credentials(params["username"], params["password"])
    elif params["auth_file"] and reference:
        try:
            credentials = credentials_from(params["auth_file"], reference.host)
        except ValueError as error:
            problems.append(str(error))
        if credentials:
            module.no_log_values.add(credentials.password)
    if not 1 <= params["connections"] <= 64:
        problems.append(f"connections must be between 1 and 64, and it is {params['connections']}.")
    if params["max_rate"]:
        try:
            max_rate = float(human_to_bytes(params["max_rate"]))
        except ValueError:
            problems.append(f"max_rate must be a number of bytes such as 50M, and it is {params['max_rate']!r}.")
    return Network(
        credentials,
        params["no_https"],
        params["ca_path"],
        params["connections"],
        max_rate,
        lambda: ensure_library(module, "requests", params["home"] or default_home()),
        progress=progress,
    )


def run(module: AnsibleModule, progress: ProgressFile) -> dict:
    def command(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(argv), environ_update=dict(environ or {}), expand_user_and_vars=False)
        return code, out, err

    params = module.params
    key = params["public_key"] if params["verify_signature"] else None
    wanted = want(
        params["path"], params["state"], params["pull"], params["verify"], params["src"], params["sha256"], key
    )
    problems = list(wanted.problems)
    network = network_of(module, wanted, problems, progress)
    if problems:
        module.fail_json(**failure([Problem("", problem.rstrip(".")) for problem in problems]))

    def resolve(wish: Wanted, seen: SeenImage) -> Remote:
        home = params["home"] or default_home()
        if module.check_mode and not prefer_library("requests", home):
            module.warn("The source was not asked, as requests is not on the host yet. What it has cannot be foreseen.")
            return Remote()
        return network.resolve(wish, seen)

    observed = observe(wanted, command, resolve, foresee=module.check_mode)
    steps = plan(wanted, observed)
    refusals: list = list(steps.refusals)
    if wanted.state == "absent" and not params["force"]:
        refusals += in_use.problems(params["home"] or default_home(), [wanted.path])
    if refusals:
        module.fail_json(**failure([Problem("", str(refusal).rstrip(".")) for refusal in refusals]))
    if steps.bring and not module.check_mode and is_deferred():
        module.exit_json(**DEFERRED)
    cache = FactsCache(params["home"] or default_home(), writes=not module.check_mode)
    more: dict = {}
    if not module.check_mode:
        if steps.bring:
            network.announce(wanted)
        applied = apply(wanted, observed, steps, command, network, cache.put)
        more.update(applied.transfer)
    elif steps.bring or wanted.state == "absent":
        applied = Applied(*foreseen(wanted, observed, steps))
    else:
        applied = keep(wanted, observed, steps, command, cache.put, may_record=False)
    for warning in applied.warnings:
        module.warn(warning)
    if module._diff:
        before = shown(observed.image, observed.image.source)
        more["diff"] = diff_of(before, shown(applied.image, applied.source), wanted.path)
    return result(steps.actions, describe(applied.image, applied.source, applied.facts), "image", **more)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "force": {"type": "bool", "default": False},
            "src": {"type": "str"},
            "sha256": {"type": "str"},
            "pull": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
            "verify": {"type": "str", "choices": ["changed", "always"], "default": "changed"},
            "verify_signature": {"type": "bool", "default": False},
            "public_key": {"type": "path"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "auth_file": {"type": "path"},
            "no_https": {"type": "bool", "default": False},
            "ca_path": {"type": "path"},
            "connections": {"type": "int", "default": 8},
            "max_rate": {"type": "str"},
            "home": {"type": "path"},
        },
        required_if=[("verify_signature", True, ["public_key"])],
        required_together=[("username", "password")],
        mutually_exclusive=[("username", "auth_file")],
        supports_check_mode=True,
    )
    let_servers_read()
    try:
        with begin(module.params["path"]) as progress:
            module.exit_json(**run(module, progress))
    except (FileChanged, FetchError, ImageError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        where = error.filename or module.params["path"]
        module.fail_json(msg=f"{where}: {error.strerror or error}. What was in place still is.")


if __name__ == "__main__":
    main()
