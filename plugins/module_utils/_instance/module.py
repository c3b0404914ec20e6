# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge between Ansible and an instance: options in, a result or a failure out.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from ansible.module_utils.basic import AnsibleModule

from .._artifact.image.sources.source import RunCommand
from .._host.files import let_servers_read
from .._host.layout import default_home, instance, instance_lock
from .._host.lock import hold
from .._host.python import ensure_library, prefer_library
from .._result import OperatorError, Problem, failure
from .._spec import store
from .._spec.spec import check_name
from . import host_plan, status
from .reconcile import reconcile
from .request import Request


def _run(module: AnsibleModule) -> RunCommand:
    """The module's own way to run a command: an argument list, never a shell."""

    def run(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(argv), environ_update=dict(environ or {}), expand_user_and_vars=False)
        return code, out, err

    return run


def _library(module: AnsibleModule, home: str, distribution: str) -> bool:
    """Have the library; without it only check mode goes on."""
    if module.check_mode:
        return prefer_library(distribution, home)
    ensure_library(module, distribution, home)
    return True


def _lock(module: AnsibleModule, home: str) -> AbstractContextManager[None]:
    """Hold the instance's lock. Check mode takes none."""
    name, params = module.params["name"], module.params
    if module.check_mode or check_name(name):
        return nullcontext()
    return hold(instance_lock(home, name), f"bringing {name} to {params['state']}", params["lock_timeout"])


def run_module(module: AnsibleModule) -> None:
    """Do what llamacpp_instance was asked; ends the module."""
    let_servers_read()
    home = module.params["home"] or default_home()
    hide = module.no_log_values.add
    request = Request(module.params, home, module.check_mode, _run(module), partial(_library, module, home), hide)
    try:
        with _lock(module, home):
            answer = reconcile(request)
    except OperatorError as error:
        module.fail_json(**error.as_failure())
    except OSError as error:
        text = f"{error.filename or home}: {error.strerror or error}"
        module.fail_json(**failure([Problem("", text, "Correct that, then run the task again.")]))
    for warning in answer.warnings:
        # In the words of llamacpp_plan, so that Ansible shows the sentence once.
        module.warn(f"{module.params['name']}: {warning}")
    module.exit_json(**answer.result)


def run_plan_module(module: AnsibleModule) -> None:
    """Do what llamacpp_plan was asked; ends the module."""
    home = module.params["home"] or default_home()
    host = host_plan.HostTools(
        home,
        _run(module),
        lambda library: prefer_library(library, home),
        module.no_log_values.add,
    )
    found = host_plan.look(module.params["instances"], host, os.environ, strict=not module.check_mode)
    if found.problems:
        module.fail_json(**failure(found.problems))
    for warning in found.warnings:
        module.warn(warning)
    module.exit_json(changed=False, **found.plan)


def run_info_module(module: AnsibleModule) -> None:
    """Do what llamacpp_instance_info was asked; ends the module."""
    home = module.params["home"] or default_home()
    wanted = module.params["name"]
    if wanted and (problems := check_name(wanted)):
        module.fail_json(**failure(problems))
    prefer_library("nvidia-ml-py", home)
    run = _run(module)
    try:
        names = _named(home, wanted) if wanted else store.names(home)
        instances = [status.one(home, name, run, module.params["log_lines"]) for name in names]
    except (OperatorError, OSError) as error:
        module.fail_json(**failure([Problem("home", f"{home} cannot be read: {error}")]))
    module.exit_json(changed=False, instances=instances)


def _named(home: str, wanted: str) -> list[str]:
    """The instance with this name, or where there is none, those with this port; the name itself where none has it."""
    names = store.names(home)
    return [wanted] if wanted in names else [name for name in names if _port(home, name) == wanted] or [wanted]


def _port(home: str, name: str) -> str | None:
    try:
        found = store.read(instance(home, name))
    except (OperatorError, OSError):
        return None  # reported where it is asked for by name
    return str(found.spec.port) if found else None
