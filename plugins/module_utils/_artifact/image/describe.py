# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image as sif_image returns it, and the outcome of a plan without carrying it out.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..seen_file import SeenFile
from ..staging import Staged
from . import inspect as image_inspect
from .apply import AppliedImage
from .decide import ImageDecision
from .sources.source import PublishedImage


def preview(decision: ImageDecision) -> AppliedImage:
    """The image as the plan will leave it, as far as that is known without carrying it out."""
    spec, seen, source = decision.spec, decision.seen, decision.spec.source
    if not decision.plan.bring or source is None:
        return AppliedImage(SeenFile(spec.path))
    published = seen.published or PublishedImage()
    size = seen.source.size if seen.source else 0 if source.needs_apptainer else published.size or 0
    sha256 = spec.sha256 or (seen.source.sha256 if seen.source else published.sha256)
    file = SeenFile(spec.path, exists=True, is_file=True, size=size, sha256=sha256)
    return AppliedImage(file, source.recorded(published))


def describe(image: AppliedImage) -> dict[str, Any]:
    """The image as a module returns it; sizes in bytes."""
    facts = image.facts or dict.fromkeys(image_inspect.KEYS)
    return {
        "path": image.file.path,
        "state": "present" if image.file.exists else "absent",
        "size": image.file.size or None,
        "sha256": image.file.sha256,
        "source": image.source.get("url") or image.source.get("src"),
        "digest": image.source.get("digest"),
        **facts,
    }


def for_diff(file: SeenFile, source: Mapping[str, Any]) -> dict[str, Any]:
    """The image for one side of ``--diff``; None is what cannot be known yet."""
    if not file.is_file:
        return {}
    values = {"size": file.size or None, "sha256": file.sha256, "source": source.get("url") or source.get("src")}
    return {file.path: {**values, "digest": source.get("digest")}}


def transfer_of(staged: Staged | None) -> dict[str, Any]:
    """What came and how long it took. What Apptainer or a copy brings does not count as bytes."""
    if staged is None:
        return {}
    keys = ("bytes_fetched", "bytes_resumed", "retries")
    found: dict[str, Any] = {key: getattr(staged.download, key, None) for key in keys}
    seconds, fetched = staged.seconds, found["bytes_fetched"]
    rate = int(fetched / seconds) if seconds and fetched is not None else None
    return {"transfer": {**found, "seconds": round(seconds, 3), "rate": rate}}
