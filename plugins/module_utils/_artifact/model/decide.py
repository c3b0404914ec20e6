# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done about a model: its spec as its source has it now, what is there, and the plan.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .observe import SeenModel, observe
from .plan import ModelPlan, plan
from .spec import ModelAccess, ModelSpec, identified, model_spec


@dataclass(frozen=True)
class ModelDecision:
    """What is specified, what is there, and the plan that makes one of the other."""

    spec: ModelSpec
    seen: SeenModel
    plan: ModelPlan


def decide(params: Mapping[str, Any], access: ModelAccess, *, preview: bool) -> ModelDecision:
    """Look at the model and plan; changes nothing. ``preview``: as in observe(). Raises OperatorError."""
    spec = identified(model_spec(params, access))
    seen = observe(spec, preview)
    return ModelDecision(spec, seen, plan(spec, seen))
