# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done about an image: its spec, what is there and at its source, and the plan.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

from .observe import SeenImage, observe
from .plan import ImagePlan, plan
from .sources.source import ImageAccess, PublishedImage
from .spec import ImageSpec


@dataclass(frozen=True)
class ImageDecision:
    """What is specified, what is there, and the plan that makes one of the other."""

    spec: ImageSpec
    seen: SeenImage
    plan: ImagePlan


def decide(
    spec: ImageSpec, access: ImageAccess, published: PublishedImage | None = None, *, preview: bool = False
) -> ImageDecision:
    """Look at the image and plan; changes nothing. The arguments are those of observe(). Raises OperatorError."""
    seen = observe(spec, access, published, preview)
    return ImageDecision(spec, seen, plan(spec, seen))
