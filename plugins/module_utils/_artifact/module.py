# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gguf_model and sif_image do alike between Ansible and their plans.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._fetch.progress import DEFERRED, ProgressFile, begin, is_deferred
from .._host.files import let_servers_read
from .._host.layout import default_home
from .._host.python import ensure_library, prefer_library
from .._result import OperatorError, Problem, failure
from .staging import refused_by_host

# Why files should not be removed, by the home of the instances and the paths of the files.
InUse = Callable[[str, Sequence[str]], Sequence[Problem]]


def run(module: AnsibleModule, work: Callable[[ProgressFile], dict[str, Any]]) -> None:
    """End the module with the result of ``work``, or with its problems."""
    let_servers_read()
    try:
        with begin(module.params["path"]) as progress:
            module.exit_json(**work(progress))
    except OperatorError as error:
        module.fail_json(**failure(error.problems))
    except OSError as error:
        module.fail_json(**failure(refused_by_host(error).problems))


def home_of(module: AnsibleModule) -> str:
    """The home of the instances on this host."""
    return str(module.params["home"] or default_home())


def ready(module: AnsibleModule) -> bool:
    """Whether the library for the network is there. Only check mode goes on without it."""
    if module.check_mode and not prefer_library("requests", home_of(module)):
        module.warn("The source was not asked, as requests is not on the host yet. The preview lacks what it has.")
        return False
    ensure_library(module, "requests", home_of(module))
    return True


def check_refusals(module: AnsibleModule, refusals: Sequence[Problem], paths: Sequence[str], in_use: InUse) -> None:
    """Raise OperatorError if the plan was refused, or if it removes files that are in use."""
    found = list(refusals)
    if module.params["state"] == "absent" and not module.params["force"]:
        found += in_use(home_of(module), paths)
    if found:
        raise OperatorError(*found)


def defer(module: AnsibleModule) -> None:
    """End the module if the action plugin wants to run it again as a job, before anything is brought."""
    if not module.check_mode and is_deferred():
        module.exit_json(**DEFERRED)
