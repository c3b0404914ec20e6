# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image comes from: what every kind of source can do.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from ...._result import Problem
from ...downloads import Downloads
from ...option_names import SIF_IMAGE, ImageOptionNames
from ...registry.auth import Credentials
from ...seen_file import SeenFile
from ...staging import Staged


class RunCommand(Protocol):
    """The module's way to run a command: an argument list, and variables that are added to the environment."""

    def __call__(
        self, argv: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]: ...  # pragma: no cover


@dataclass(frozen=True)
class ImageAccess:
    """What sources use of the host. ``ready``: whether the library for the network is there, asked before each use.

    ``names``: the options that problems name. ``remember``: as in inspect.py.
    """

    run: RunCommand
    ready: Callable[[], bool] = lambda: True
    downloads: Downloads = field(default_factory=Downloads)
    credentials: Credentials | None = None
    no_https: bool = False
    names: ImageOptionNames = SIF_IMAGE
    remember: Callable[[str, Any], None] = lambda sha256, reading: None


@dataclass(frozen=True)
class PublishedImage:
    """What a source says about its image now; None is what it does not say. Sizes in bytes."""

    digest: str | None = None  # of the manifest, sha256:...
    sha256: str | None = None  # of the SIF file
    size: int | None = None  # of the SIF file; of all layers where Apptainer builds it
    validator: str | None = None  # the version of the file at a web server


@dataclass(frozen=True)
class ImageFetch:
    """One image to bring to ``place``; its own path is ``path``. ``program`` is apptainer or singularity."""

    path: str
    place: str
    sha256: str | None
    published: PublishedImage
    program: str | None
    access: ImageAccess


@dataclass(frozen=True)
class ImageSource:
    """The source of one image. ``shown`` is the ``address`` without secrets.

    ``verb`` begins the action that brings the image. ``can_be_asked``: what the address has now, over the network.
    ``needs_apptainer``: Apptainer brings the image, and ``copies`` of it are on the disk meanwhile. ``is_built``: each
    time, the file is another one, so that only the manifest's digest identifies it. ``needs_sha256``: nothing else
    identifies an image before it is brought.
    """

    address: str
    shown: str

    schemes: ClassVar[tuple[str, ...]] = ()
    verb: ClassVar[str] = "Pull"
    can_be_asked: ClassVar[bool] = True
    needs_apptainer: ClassVar[bool] = False
    copies: ClassVar[int] = 1
    is_built: ClassVar[bool] = False
    needs_sha256: ClassVar[bool] = False

    @property
    def pin(self) -> str | None:
        """The digest of the manifest, if the address has one."""
        return None

    @property
    def host_path(self) -> str | None:
        """The file of this host that is copied; None for an image from elsewhere."""
        return None

    @property
    def registry_host(self) -> str | None:
        """The host of the registry that is asked for the image."""
        return None

    @property
    def file_name(self) -> tuple[str, str]:
        """The stem and the extension of a file for the image."""
        return os.path.splitext(os.path.basename(urlsplit(self.shown).path) or "image.sif")

    def problems(self, sha256: str | None, pull: str, names: ImageOptionNames) -> list[Problem]:
        """What is wrong with the options, together with this source."""
        return []

    def identify(self, seen: SeenFile, access: ImageAccess) -> PublishedImage:
        """What the source says about its image now. Raises OperatorError."""
        return PublishedImage()

    def fetch(self, job: ImageFetch) -> AbstractContextManager[Staged]:
        """Bring the image to ``job.place``, or to its folder; it is removed after a failure.

        Raises OperatorError and OSError.
        """
        raise NotImplementedError

    def pinned(self, digest: str | None) -> ImageSource:
        """The same source, of the manifest with this digest whatever becomes of the tag."""
        return self

    def recorded(
        self, published: PublishedImage, validator: str | None = None, stamp: Sequence[int] = ()
    ) -> dict[str, Any]:
        """The source as the record of the image has it. ``stamp`` is that of the file at host_path."""
        digest = published.digest or self.pin
        return {"url": self.shown, **({"digest": digest} if digest else {})}

    def known_digest(self, seen: SeenFile) -> str | None:
        """The manifest that the file is known to be from."""
        return self.digest_in(seen.source)

    def digest_in(self, recorded: Mapping[str, Any]) -> str | None:
        """The manifest in a record, if that is of the same kind of source.

        A file that Apptainer built of a manifest is another one than the file in that manifest.
        """
        scheme = str(recorded.get("url")).partition("://")[0]
        return recorded.get("digest") if scheme in self.schemes else None
