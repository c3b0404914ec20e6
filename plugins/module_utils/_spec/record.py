# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What instance.json holds, as types: the spec, its launch, the files it uses, and the release last proven. Pure.

Private to gpufleet.llamacpp; may change at any time. ``from_json`` accepts everything that format 1 ever was: what a
record is too old to have gets the value that it stood for. Parts that other rooms own stay JSON: ``gate`` is _gate's,
``memory`` is _preflight's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .launch import Launch
from .spec import Spec, of_record

FORMAT = 1


@dataclass(frozen=True)
class FileFacts:
    """One file of a model: ``stamp`` is its size, mtime_ns, ctime_ns and inode when the digest was taken."""

    path: str
    stamp: tuple[int, ...] | None
    sha256: str | None


@dataclass(frozen=True)
class ModelFacts:
    """A model on the host. Sizes in bytes; ``sha256`` of a split model is that of its parts' digests."""

    path: str
    files: tuple[FileFacts, ...] = ()
    sha256: str | None = None
    size: int | None = None
    name: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    tensor_bytes: int | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelFacts:
        """The facts as a record has them."""
        known: dict[str, Any] = {field.name: value.get(field.name) for field in fields(cls)}
        files = tuple(
            FileFacts(file["path"], None if file.get("stamp") is None else tuple(file["stamp"]), file.get("sha256"))
            for file in value.get("files") or ()
        )
        return cls(**{**known, "files": files})

    def to_json(self) -> dict[str, Any]:
        """The facts for a record."""
        files = [
            {"path": file.path, "stamp": None if file.stamp is None else list(file.stamp), "sha256": file.sha256}
            for file in self.files
        ]
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "files": files}


@dataclass(frozen=True)
class ImageFacts:
    """An image on the host. ``source`` is the address it came from, ``digest`` its manifest's there."""

    path: str
    stamp: tuple[int, ...] | None = None
    sha256: str | None = None
    server_path: str | None = None
    build: str | None = None
    options_digest: str | None = None
    source: str | None = None
    digest: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageFacts:
        """The facts as a record has them."""
        known: dict[str, Any] = {field.name: value.get(field.name) for field in fields(cls)}
        return cls(**{**known, "stamp": None if value.get("stamp") is None else tuple(value["stamp"])})

    def to_json(self) -> dict[str, Any]:
        """The facts for a record."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "stamp": None if self.stamp is None else list(self.stamp)}


@dataclass(frozen=True)
class Setup:
    """What an instance runs: enough to run it again."""

    spec: Spec
    manager: str
    launch: Launch
    image: ImageFacts | None
    model: ModelFacts | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Setup:
        """The setup in a record or in a release."""
        spec = of_record(value["spec"])
        return cls(
            spec,
            value["manager"],
            Launch.from_json(value["launch"], spec.image),
            ImageFacts.from_json(value["image"]) if value.get("image") else None,
            ModelFacts.from_json(value["model"]) if value.get("model") else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The setup for a record."""
        return {
            "spec": self.spec.as_dict(),
            "manager": self.manager,
            "launch": self.launch.to_json(),
            "image": self.image.to_json() if self.image else None,
            "model": self.model.to_json() if self.model else None,
        }


@dataclass(frozen=True)
class Release:
    """A setup that passed the gate. ``proven`` is UTC as ISO 8601; ``completion`` is what the gate measured, ``gpus``
    what it saw on each GPU.
    """

    proven: str
    ready_seconds: float | None
    completion: Mapping[str, Any]
    gpus: list[dict[str, Any]] | None
    setup: Setup

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Release:
        """A release as a record has it."""
        return cls(
            value["proven"],
            value.get("ready_seconds"),
            value.get("completion") or {},
            value.get("gpus"),
            Setup.from_json(value),
        )

    def to_json(self) -> dict[str, Any]:
        """The release for a record."""
        return {
            "proven": self.proven,
            "ready_seconds": self.ready_seconds,
            "completion": dict(self.completion),
            "gpus": self.gpus,
            **self.setup.to_json(),
        }


@dataclass(frozen=True)
class Record:
    """What the host remembers of an instance: what was asked for, what it means here, and what was last proven."""

    setup: Setup
    release: Release | None = None
    gate: Mapping[str, Any] | None = None
    memory: Mapping[str, Any] | None = None

    @property
    def spec(self) -> Spec:
        """What the operator asked for."""
        return self.setup.spec

    @property
    def manager(self) -> str:
        """The name of the manager."""
        return self.setup.manager

    @property
    def launch(self) -> Launch:
        """The command that the spec means on this host."""
        return self.setup.launch

    @property
    def image(self) -> ImageFacts | None:
        """The image's file."""
        return self.setup.image

    @property
    def model(self) -> ModelFacts | None:
        """The model's files."""
        return self.setup.model

    def asks_the_same(self, other: Record) -> bool:
        """Whether both describe the same server; releases and stat values of files may differ."""
        mine, theirs = self.setup, other.setup
        return (mine.spec, mine.manager, mine.launch, self.gate) == (
            theirs.spec,
            theirs.manager,
            theirs.launch,
            other.gate,
        )

    def of_release(self, release: Release) -> Record:
        """The record with a release's setup in place of its own."""
        return replace(self, setup=release.setup)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """A record as instance.json has it. Raises KeyError, TypeError, ValueError and AttributeError for no record."""
        release = value.get("release")
        return cls(
            Setup.from_json(value),
            Release.from_json(release) if release else None,
            value.get("gate"),
            value.get("memory"),
        )

    def to_json(self) -> dict[str, Any]:
        """The record for instance.json."""
        return {
            "format": FORMAT,
            **self.setup.to_json(),
            "release": self.release.to_json() if self.release else None,
            "gate": self.gate,
            "memory": self.memory,
        }
