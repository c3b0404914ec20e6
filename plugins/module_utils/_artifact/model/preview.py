# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of a plan for a model without carrying it out, for check mode.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from dataclasses import replace

from .decide import ModelDecision
from .plan import is_renamed
from .seen import SeenGguf, with_header


def preview(decision: ModelDecision) -> tuple[SeenGguf, ...]:
    """The model's files as the plan will leave them, as far as that is known without carrying it out."""
    spec, plan, source = decision.spec, decision.plan, decision.spec.source
    files = [SeenGguf(one.path) if index in plan.remove else one for index, one in enumerate(decision.seen.files)]
    if source is None:
        return tuple(files)
    for index in plan.bring:
        file, seen = spec.files[index], decision.seen.sources[index]
        recorded = source.recorded(index, seen.stamp if seen else None)
        new = replace(SeenGguf(file.path, True, True, file.size or 0, sha256=file.sha256), planned_source=recorded)
        if seen is not None:
            seen = seen if seen.gguf else with_header(seen)
            new = replace(new, size=seen.size, gguf=seen.gguf, sha256=file.sha256 or seen.sha256)
        files[index] = new
    for index in plan.record:
        if is_renamed(source, index, spec.files[index], files[index]):
            files[index] = replace(files[index], planned_source=source.recorded(index, None))
    return tuple(files)
