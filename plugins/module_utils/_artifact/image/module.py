# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""sif_image from its options to its result.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..._fetch.progress import ProgressFile
from ..._result import OperatorError, Problem, diff_of, result
from ..downloads import downloads_of
from ..module import InUse, check_refusals, defer, ready, run
from ..registry.auth import Credentials, credentials_from
from .apply import apply, keep
from .decide import decide
from .describe import describe, for_diff, preview, transfer_of
from .inspect import Remember
from .sources.source import ImageAccess
from .spec import ImageSpec, image_spec


def run_module(module: AnsibleModule, in_use: InUse, remember: Remember) -> None:
    """Do what sif_image was asked to do; ends the module.

    ``in_use``: why files should not be removed. ``remember`` gets the reading of a new image.
    """
    run(module, partial(_work, module, in_use, remember))


def _work(module: AnsibleModule, in_use: InUse, remember: Remember, progress: ProgressFile) -> dict[str, Any]:
    spec, access = _parse(module, remember, progress)
    decision = decide(spec, access, preview=module.check_mode)
    seen, plan = decision.seen.file, decision.plan
    check_refusals(module, plan.refusals, [spec.path], in_use)
    if plan.bring:
        defer(module)
    if not module.check_mode:
        done = apply(decision, access)
    elif plan.bring or spec.state == "absent":
        done = preview(decision)
    else:
        done = keep(decision, access, may_record=False)
    for warning in done.warnings:
        module.warn(warning)
    more = transfer_of(done.staged)
    if module._diff:
        more["diff"] = diff_of(for_diff(seen, seen.source), for_diff(done.file, done.source), spec.path)
    return result(plan.actions, describe(done), "image", **more)


def _parse(module: AnsibleModule, remember: Remember, progress: ProgressFile) -> tuple[ImageSpec, ImageAccess]:
    """The image that the options specify, and the access to its source. Raises OperatorError with every problem."""
    params, spec = module.params, image_spec(module.params)
    problems: list[Problem] = list(spec.problems)
    credentials = None
    try:
        credentials = _credentials(params, spec)
    except OperatorError as error:
        problems += error.problems
    if problems:
        raise OperatorError(*problems)
    if credentials:
        module.no_log_values.add(credentials.password)
    limits = downloads_of(params, progress)
    access = ImageAccess(_runner(module), partial(ready, module), limits, credentials, params["no_https"])
    return spec, replace(access, remember=remember)


def _credentials(params: Mapping[str, Any], spec: ImageSpec) -> Credentials | None:
    if params["username"]:
        return Credentials(params["username"], params["password"])
    host = spec.source.registry_host if spec.source else None
    return credentials_from(params["auth_file"], host, "auth_file") if params["auth_file"] and host else None


def _runner(module: AnsibleModule) -> Any:
    """The module's way to run a command: an argument list, never a shell."""

    def run_command(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(argv), environ_update=dict(environ or {}), expand_user_and_vars=False)
        return code, out, err

    return run_command
