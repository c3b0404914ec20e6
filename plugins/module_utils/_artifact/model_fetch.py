# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's files and the fetch engine: what model_apply asks of the network.

Private to gpufleet.llamacpp; may change at any time.

The engine is imported where it is used, so that only a run that fetches needs its library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model import ModelError, WantedFile


def bring(file: WantedFile, path: str) -> Any:
    """Fetch one file to ``path``; returns fetch.Fetched. Raises ModelError."""
    from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.fetch import FetchError, Source, fetch

    try:
        return fetch([Source(str(file.url))], path, size=None, sha256=file.sha256)
    except FetchError as error:
        # Told by the place that the operator gave: where it lies until then is our affair.
        raise ModelError(str(error).replace(path, file.path)) from error


def needs(file: WantedFile, path: str) -> int:
    """The bytes of disk that fetching the file to ``path`` will still take. Raises ModelError."""
    from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import fetch
    from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.part import part_path

    try:
        remote = fetch.inspect(fetch.Source(str(file.url)))
    except fetch.FetchError as error:
        raise ModelError(str(error)) from error
    try:
        # An interrupted run may have reserved it all already.
        reserved = os.stat(part_path(path, fetch.content_id(file.sha256, remote.validator))).st_blocks * 512
    except OSError:
        reserved = 0
    return max(remote.size - reserved, 0)


def transfer_of(transfers: Sequence[Any]) -> dict[str, Any]:
    """What came over the network, summed over the files, as a module returns it; empty where nothing did."""
    if not transfers:
        return {}
    keys = ("bytes_fetched", "bytes_resumed", "bytes_from_mirrors", "retries", "seconds")
    total: dict[str, Any] = {key: sum(getattr(one, key) for one in transfers) for key in keys}
    total["rate"] = int(total["bytes_fetched"] / total["seconds"]) if total["seconds"] else 0
    return {"transfer": total}
