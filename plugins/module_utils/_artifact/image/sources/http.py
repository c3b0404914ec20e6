# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that is downloaded from an http or https address.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ...._fetch.source import public_address
from ...._result import OperatorError, Problem
from ...seen_file import SeenFile
from ...staging import Staged, discarded_on_failure
from .source import ImageAccess, ImageFetch, ImageSource, PublishedImage


@dataclass(frozen=True)
class HttpImage(ImageSource):
    """``address`` may have a user, a password and a query."""

    schemes = ("http", "https")
    needs_sha256 = True

    @classmethod
    def parse(cls, scheme: str, address: str, option: str) -> HttpImage:
        """The source of an address. Raises OperatorError about ``option``."""
        try:
            host = urlsplit(address).hostname
        except ValueError:
            host = None
        if not host:
            # The address may hold a password, so it is not shown.
            raise OperatorError(
                Problem(option, f"the {scheme} address has no host", f"Write {scheme}://host/path.sif.")
            )
        return cls(address, public_address(address))

    def identify(self, seen: SeenFile, access: ImageAccess) -> PublishedImage:
        found = access.downloads.inspect(self._engine_source(access))
        return PublishedImage(size=found.size, validator=found.validator)

    @contextmanager
    def fetch(self, job: ImageFetch) -> Iterator[Staged]:
        job.access.ready()
        source, downloads = self._engine_source(job.access), job.access.downloads
        with discarded_on_failure(
            downloads.fetch([source], job.place, job.path, size=None, sha256=job.sha256)
        ) as staged:
            yield staged

    def _engine_source(self, access: ImageAccess) -> Any:
        from ...._fetch.engine import Source

        headers = {"Authorization": access.credentials.basic} if access.credentials else {}
        return Source(self.address, headers)

    def recorded(
        self, published: PublishedImage, validator: str | None = None, stamp: Sequence[int] = ()
    ) -> dict[str, Any]:
        return {"url": self.shown, "validator": validator}
