# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""gguf_model from its options to its result.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..._fetch.progress import ProgressFile
from ..._result import diff_of, result
from ..downloads import downloads_of
from ..module import InUse, check_refusals, defer, ready, run
from .apply import AppliedModel, apply
from .decide import decide
from .describe import describe, for_diff
from .preview import preview
from .spec import ModelAccess


def run_module(module: AnsibleModule, in_use: InUse) -> None:
    """Do what gguf_model was asked to do; ends the module. ``in_use``: why files should not be removed."""
    run(module, partial(_work, module, in_use))


def _work(module: AnsibleModule, in_use: InUse, progress: ProgressFile) -> dict[str, Any]:
    access = ModelAccess(os.environ, partial(ready, module), module.no_log_values.add)
    decision = decide(module.params, access, preview=module.check_mode)
    spec, plan, path = decision.spec, decision.plan, decision.spec.files[0].path
    check_refusals(module, plan.refusals, [file.path for file in spec.files], in_use)
    if plan.bring:
        defer(module)
    if module.check_mode:
        done = AppliedModel(preview(decision))
    else:
        if plan.bring and spec.source and spec.source.is_remote:
            access.ready()
        done = apply(decision, downloads_of(module.params, progress))
    for warning in (*spec.warnings, *done.warnings):
        module.warn(warning)
    more = _transfer(done.downloads)
    if module._diff:
        more["diff"] = diff_of(for_diff(decision.seen.files), for_diff(done.files), path)
    return result(plan.actions, describe(path, done.files), "model", **more)


def _transfer(downloads: Sequence[Any]) -> dict[str, Any]:
    """What came over the network, summed over the files; nothing where nothing did."""
    if not downloads:
        return {}
    keys = ("bytes_fetched", "bytes_resumed", "bytes_from_mirrors", "retries", "seconds")
    total: dict[str, Any] = {key: sum(getattr(one, key) for one in downloads) for key in keys}
    total["rate"] = int(total["bytes_fetched"] / total["seconds"]) if total["seconds"] else 0
    return {"transfer": total}
