# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter declared: a model has one source, that of the last layer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.filter.declared import declared

HUB = {"path": "/m/a.gguf", "repo": "o/r", "file": "a.gguf", "revision": "v1", "mirrors": ["m"]}


@pytest.mark.parametrize(
    ("model", "override", "expected"),
    [
        (HUB, {"url": "near"}, {"path": "/m/a.gguf", "url": "near"}),
        (HUB, {"src": "/s", "path": "/m/b.gguf"}, {"path": "/m/b.gguf", "src": "/s"}),
        (HUB, {"repo": "o/q", "file": "b.gguf"}, {"path": "/m/a.gguf", "repo": "o/q", "file": "b.gguf"}),
        (HUB, {"file": "b.gguf"}, {**HUB, "file": "b.gguf"}),
        (HUB, {"path": "/m/b.gguf"}, {**HUB, "path": "/m/b.gguf"}),
        (HUB, "/m/b.gguf", {**HUB, "path": "/m/b.gguf"}),
        (
            {"path": "/m/a.gguf", "url": "u", "sha256": "s"},
            {"repo": "o/r"},
            {"path": "/m/a.gguf", "repo": "o/r", "sha256": "s"},
        ),
    ],
)
def test_the_source_of_the_last_layer(model: Any, override: Any, expected: dict[str, Any]) -> None:
    entry = {"name": "one", "port": 1, "model": model}
    assert declared([entry], None, {"one": {"model": override}})[0]["model"] == expected


def test_the_source_of_the_defaults_is_replaced() -> None:
    entry = {"name": "one", "port": 1, "model": {"path": "/m/a.gguf", "url": "u"}}
    assert declared([entry], {"model": {"repo": "o/r"}})[0]["model"] == {"path": "/m/a.gguf", "url": "u"}


def test_the_hub_of_a_site_stays() -> None:
    site = {"endpoint": "https://hub.example.com", "token_file": "/t", "verify": "never"}
    entry = {"name": "one", "port": 1, "model": {"path": "/m/a.gguf", "repo": "o/r", "file": "a.gguf"}}
    assert declared([entry], {"model": site})[0]["model"] == {**site, **entry["model"]}
