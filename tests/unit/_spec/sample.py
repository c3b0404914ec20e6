# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed's instance 4403 as options, spec, launch and record, for tests to change one thing in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import launch, spec
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec.record import (
    ImageFacts,
    ModelFacts,
    Record,
    Release,
    Setup,
)

HOME = "/h"
FOLDER = "/h/4403-glm-4.7-flash-q4"
IMAGE = "/h/shared/llamacpp-cuda-complete.sif"
MODEL = "/data/models/GLM-4.7-Flash-UD-Q4_K_XL.gguf"
SERVER = "/opt/llama.cpp/build/bin/llama-server"


def params(**changes: Any) -> dict[str, Any]:
    """The module's options as Ansible hands them over."""
    options: dict[str, Any] = {
        "name": "4403-glm-4.7-flash-q4",
        "state": "started",
        "home": HOME,
        "image": "shared/llamacpp-cuda-complete.sif",
        "image_sha256": None,
        "image_auth_file": None,
        "image_no_https": False,
        "image_ca_path": None,
        "pull": "missing",
        "model": MODEL,
        "alias": None,
        "host": "0.0.0.0",
        "port": 4403,
        "gpus": ["0", "1", "2", "3"],
        "gpu_layers": "99",
        "context_size": 65536,
        "threads": 32,
        "parallel": None,
        "args": ["--jinja", "--fit on", "--temp 1.0", "--top-p 0.95", "--min-p 0.01", "--repeat-penalty 1.0"],
        "env": {},
        "binds": ["/data/models:/models"],
        "api_key_file": None,
        "server_path": None,
        "manager": "auto",
        "user": "llamacpp",
        "wait_timeout": None,
        "gate": "full",
        "gate_prompts": [],
        "gate_prompt_tokens": None,
        "max_slowdown": None,
        "drain_timeout": 60,
        "rollback": True,
        "lock_timeout": 60,
        "allow_options": [],
        "min_build": None,
    }
    unknown = set(changes) - set(options)
    if unknown:
        raise ValueError(f"no options: {unknown}")
    return {**options, **changes}


def a_spec(**changes: Any) -> spec.Spec:
    return spec.parse(params(**changes), HOME)


def found(**changes: Any) -> launch.Found:
    values: dict[str, Any] = {
        "runtime": "/usr/bin/apptainer",
        "server_path": SERVER,
        "image_sha256": "1" * 64,
        "model_sha256": "2" * 64,
        "certificates": (),
        "user": None,
        "user_home": "/home/operator",
    }
    return launch.Found(**{**values, **changes})


def a_launch(on: launch.Found | None = None, **changes: Any) -> launch.Launch:
    return launch.build(a_spec(**changes), on or found(), state_file=f"{FOLDER}/running.json", log=None)


def a_record(
    manager: str = "supervisor", on: launch.Found | None = None, release: bool = False, **changes: Any
) -> Record:
    """The record that a deployment of these options leaves; with ``release`` a proven one."""
    on = on or found()
    setup = Setup(
        a_spec(**changes),
        manager,
        a_launch(on, **changes),
        ImageFacts(IMAGE, (1, 2, 3, 4), on.image_sha256, on.server_path),
        ModelFacts(MODEL, sha256=on.model_sha256, size=18 << 30, name="GLM"),
    )
    proven = Release("2026-10-01T12:00:00Z", 1.0, {"answer": "Paris", "tokens_per_second": 20.0}, None, setup)
    return Record(setup, proven if release else None)


def with_launch(record: Record, **changes: Any) -> Record:
    """The record with another launch, as ``dataclasses.replace`` makes it."""
    return replace(record, setup=replace(record.setup, launch=replace(record.launch, **changes)))


def with_setup(record: Record, **changes: Any) -> Record:
    """The record with a part of its setup replaced."""
    return replace(record, setup=replace(record.setup, **changes))
