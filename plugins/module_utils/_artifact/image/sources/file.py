# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that is copied from a file of the same host.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...staging import Staged, copy, discarded_on_failure
from .source import ImageFetch, ImageSource, PublishedImage


@dataclass(frozen=True)
class HostImage(ImageSource):
    """``address`` is an absolute path."""

    verb = "Copy"
    can_be_asked = False

    @property
    def host_path(self) -> str:
        return self.address

    @contextmanager
    def fetch(self, job: ImageFetch) -> Iterator[Staged]:
        job.access.downloads.progress.enter("copy", job.path)
        began = time.monotonic()
        path, sha256 = copy(self.address, job.place)
        with discarded_on_failure(Staged(path, sha256, time.monotonic() - began)) as staged:
            yield staged

    def recorded(
        self, published: PublishedImage, validator: str | None = None, stamp: Sequence[int] = ()
    ) -> dict[str, Any]:
        # The stamp saves reading the source again.
        return {"src": self.shown, "stamp": list(stamp)}
