# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge between Ansible and an instance: options in, a result or one sentence out.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.identity import FileChanged
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.source import FetchError
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.manager import ManagerError
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.python import (
    default_home,
    ensure_library,
    prefer_library,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.runtime import Run
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance import describe, record
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.ensure import Request, ensure
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.prove import GateFailed
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._instance.spec import check_name
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal


def _run(module: AnsibleModule) -> Run:
    """The module's own way to run a command: an argument list, never a shell."""

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(argv))
        return code, out, err

    return run


def run_module(module: AnsibleModule) -> None:
    """Do what llamacpp_instance was asked; ends the module."""
    home = module.params["home"] or default_home()
    library = partial(ensure_library, module, home=home)
    request = Request(module.params, home, module.check_mode, _run(module), library)
    try:
        answer = ensure(request)
    except (Refusal, GateFailed, ManagerError, FetchError, FileChanged) as failure:
        module.fail_json(msg=str(failure))
    except OSError as error:
        where, what = error.filename or home, error.strerror or error
        module.fail_json(msg=f"{where}: {what}. The task can be run again once that is mended.")
    for warning in answer.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**answer)


def run_info_module(module: AnsibleModule) -> None:
    """Do what llamacpp_instance_info was asked; ends the module."""
    home = module.params["home"] or default_home()
    wanted = module.params["name"]
    if wanted and (problems := check_name(wanted)):
        module.fail_json(msg=problems[0])
    prefer_library("nvidia-ml-py", home)
    run = _run(module)
    try:
        names = [wanted] if wanted else record.names(home)
        instances = [describe.one(home, name, run) for name in names]
    except (ManagerError, OSError, KeyError) as error:
        module.fail_json(msg=f"{home}: {error!r}. It holds something that no version of this collection wrote.")
    module.exit_json(changed=False, instances=instances)
