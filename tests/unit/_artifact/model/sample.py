# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of gguf_model and their spec, for tests that need no Ansible."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.options import MODEL
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.spec import (
    ModelAccess,
    ModelSpec,
    model_spec,
)

ACCESS = ModelAccess({}, lambda: True, lambda secret: None)


def params(path: str, **options: Any) -> dict[str, Any]:
    """All options, as Ansible gives them to the module."""
    assert set(options) <= set(MODEL)
    return {**{name: spec.get("default") for name, spec in MODEL.items()}, "path": path, **options}


def spec_of(path: str, **options: Any) -> ModelSpec:
    return model_spec(params(path, **options), ACCESS)
