# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image should be, what was seen of it, and what to do: the pure part of sif_image.

Private to gpufleet.llamacpp; may change at any time.

An image is one SIF file. image_observe.py looks, ``plan`` decides, image_apply.py does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._result import Action
from ..file_record import Identity, is_sha256
from ..staging import Room, lacks
from .sources import Origin, origin_of

# Apptainer has the layers, what it unpacks of them and the file it builds on the disk at once (measured: 3 copies).
BUILD_COPIES = 3


class ImageError(Exception):
    """A plan could not be carried out; what was in place still is. The message is a sentence for the operator."""


@dataclass(frozen=True)
class Wanted:
    path: str
    state: str  # present | absent
    pull: str  # missing | always | never
    verify: str  # changed | always
    origin: Origin | None = None
    sha256: str | None = None
    public_key: str | None = None  # the file that holds it, where the signature is to be verified
    problems: tuple[str, ...] = ()  # what is wrong with the wish itself

    @property
    def by_runtime(self) -> bool:
        """Whether Apptainer brings it, and not our own engine."""
        return self.origin is not None and self.origin.kind in ("docker", "library")


@dataclass(frozen=True)
class SeenImage:
    """A SIF file on the host; ``problem``: why it is of no use."""

    path: str
    kind: str = "absent"  # absent | file | other (a folder, a device, a file that may not be read)
    size: int = 0
    stamp: tuple[int, ...] = ()  # what identifies this state of the file without reading it
    problem: str | None = None
    record: Identity | None = None  # the last one, current or not
    trusted: bool = False  # the record is current
    sha256: str | None = None  # recorded and current, or read now
    read_since_ns: int | None = None  # when the reading began, if it was read now

    @property
    def source(self) -> Mapping[str, Any]:
        """What the record says about where this content came from; empty where it is of another content."""
        same = self.record is not None and self.sha256 in (None, self.record.sha256)
        return self.record.source if self.record and same else {}

    @property
    def details(self) -> Mapping[str, Any]:
        """What was learned of this content before."""
        same = self.record is not None and self.sha256 == self.record.sha256
        return self.record.details if self.record and same else {}


@dataclass(frozen=True)
class Remote:
    """What a source says about itself now; None is what it does not say, or was not asked. Sizes in bytes."""

    digest: str | None = None  # of the manifest, sha256:...
    sha256: str | None = None  # of the SIF file
    size: int | None = None  # of the SIF file; of all layers where Apptainer builds it
    validator: str | None = None


@dataclass(frozen=True)
class Observed:
    image: SeenImage
    room: Room
    source: SeenImage | None = None  # on this host
    remote: Remote | None = None  # None: nothing was asked over the network
    runtime: str | None = None  # the path of apptainer or singularity
    key: str | None = None  # the sha256 of the public key's file
    signature: str | None = None  # what is wrong with the image's signature
    leftovers: tuple[str, ...] = ()  # of interrupted runs; looked for where the image is to be removed


@dataclass(frozen=True)
class Plan:
    """``record``: the image stays, and its record is made anew (which is no change)."""

    refusals: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    bring: bool = False
    record: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)  # what the record is to say, where the image stays


def want(
    path: str,
    state: str = "present",
    pull: str = "missing",
    verify: str = "changed",
    src: str | None = None,
    sha256: str | None = None,
    public_key: str | None = None,
) -> Wanted:
    """The wish in canonical form; what is wrong with it is kept in it."""
    problems: list[str] = []
    if not path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
        problems.append(f"path must be the absolute path of a file, without '..', and it is {path!r}.")
    origin = None
    if state == "present" and src is not None:
        try:
            origin = origin_of(src)
        except ValueError as error:
            problems.append(str(error))
    digest = sha256.lower() if sha256 else None
    if digest and not is_sha256(digest):
        problems.append(f"sha256 must have 64 hexadecimal digits, and it is {sha256!r} ({len(digest)} characters).")
    if origin and origin.kind == "docker" and digest:
        problems.append(
            "sha256 cannot be given with docker://, as Apptainer builds another file of the same image each time. Say "
            "which image by its digest: docker://registry/name@sha256:<digest>."
        )
    if origin and origin.kind == "library" and pull == "always" and origin.may_move and not digest:
        problems.append(
            "pull is always, and a library does not tell whether a tag moved. Give sha256, or leave pull at missing."
        )
    return Wanted(path, state, pull, verify, origin, digest, public_key, tuple(problems))


def asks(wanted: Wanted, seen: SeenImage) -> bool:
    """Whether the plan depends on what the source says over the network; not where a digest or a record settles it."""
    origin = wanted.origin
    if wanted.state == "absent" or origin is None or origin.kind in ("file", "library") or wanted.pull == "never":
        return False
    if wanted.problems or seen.kind == "other":
        return False
    if unfit(wanted, seen):
        return True
    if wanted.sha256:
        return False
    if origin.pin:
        return known_digest(origin, seen) != origin.pin
    if wanted.pull == "always":
        return True
    return _moved_here(origin, seen) is not None


def known_digest(origin: Origin, seen: SeenImage) -> str | None:
    """The manifest that the file is known to be from; what Apptainer built of one is another file than one in it."""
    same_kind = str(seen.source.get("url")).startswith(f"{origin.kind}://")
    return seen.source.get("digest") if same_kind else None


def unfit(wanted: Wanted, seen: SeenImage) -> str | None:
    """Why the file on the host will not do, by itself."""
    if seen.kind == "absent":
        return f"{seen.path} is not there"
    if seen.problem:
        return seen.problem
    if wanted.sha256 and seen.sha256 and seen.sha256 != wanted.sha256:
        return f"{seen.path} has the sha256 {seen.sha256}, and {wanted.sha256} is wanted"
    return None


def _moved_here(origin: Origin, seen: SeenImage) -> str | None:
    """Why, by the record of a sound file, another one is wanted; None for a file of unknown origin."""
    if seen.record is None:
        return None
    came_from = seen.record.source.get("url") or seen.record.source.get("src")
    if came_from and came_from != origin.shown:
        return f"{seen.path} came from {came_from}, and {origin.shown} is wanted"
    if came_from and seen.sha256 != seen.record.sha256:
        return f"{seen.path} is no longer what came from {came_from}: its sha256 was {seen.record.sha256}"
    return None


def news(wanted: Wanted, observed: Observed) -> str | None:
    """Why a sound file that no sha256 settles should be brought again: its source, or itself, is another now."""
    origin, seen, remote = wanted.origin, observed.image, observed.remote
    if origin is None or wanted.sha256:
        return None
    if origin.kind == "file":
        return _news_of_file(wanted, observed)
    if remote and remote.sha256:
        if remote.sha256 == seen.sha256:
            return None
        return (
            f"{origin.shown} is {remote.digest} now, with the sha256 {remote.sha256}, and {seen.path} has {seen.sha256}"
        )
    had = known_digest(origin, seen)
    now = origin.pin or (remote.digest if remote else None)
    if now and now == had:
        return None
    if now and had:
        return f"{origin.shown} is {now} now, and {seen.path} is {had}"
    if now:
        return f"{seen.path} is not known to be {now}, which is wanted"
    moved = _moved_here(origin, seen)
    if moved:
        return moved
    if remote and remote.validator and seen.source.get("validator", remote.validator) != remote.validator:
        return f"{origin.shown} has changed ({seen.source['validator']} became {remote.validator})"
    return None


def _news_of_file(wanted: Wanted, observed: Observed) -> str | None:
    source, seen = observed.source, observed.image
    if source is None or source.kind != "file":
        return None
    if source.size != seen.size:
        return f"{source.path} has {source.size} bytes, and {seen.path} has {seen.size}"
    if source.sha256 and seen.sha256 and source.sha256 != seen.sha256:
        return f"{source.path} has another content ({source.sha256}) than {seen.path} ({seen.sha256})"
    return None


def plan(wanted: Wanted, observed: Observed) -> Plan:
    """What to do so that the host is as wanted, each with its reason, or every reason why not. Reads nothing."""
    seen = observed.image
    wrong = [*wanted.problems, *([str(seen.problem)] if seen.kind == "other" else [])]
    if wanted.state == "absent":
        return _plan_removal(observed, wrong)
    reason = None if seen.kind == "other" else unfit(wanted, seen) or news(wanted, observed)
    if reason:
        wrong += _refusals(wanted, observed, reason)
    elif observed.signature and seen.kind == "file":
        wrong.append(observed.signature)
    if wanted.public_key and observed.key is None:
        wrong.append(f"public_key: {wanted.public_key} is not there on the host, or cannot be read.")
    if wanted.public_key and observed.runtime is None:
        wrong.append("A signature is verified by Apptainer, and this host has neither apptainer nor singularity.")
    if wrong:
        return Plan(refusals=tuple(dict.fromkeys(wrong)))
    if reason is None:
        source = _source_of_kept(wanted, observed)
        return Plan(record=_is_news_to_record(wanted, observed, source), source=source)
    actions = []
    if not observed.room.exists:
        actions.append(Action(f"Create the folder {observed.room.folder}", f"{observed.room.folder} is not there"))
    what = "Copy" if wanted.origin and wanted.origin.kind == "file" else "Pull"
    actions.append(Action(f"{what} {wanted.origin.shown if wanted.origin else ''} to {wanted.path}", reason))
    return Plan(actions=tuple(actions), bring=True)


def _plan_removal(observed: Observed, wrong: list[str]) -> Plan:
    paths = [observed.image.path] if observed.image.kind != "absent" else []
    paths += observed.leftovers
    if paths and observed.room.problem:
        wrong = [*wrong, observed.room.problem]
    if wrong:
        return Plan(refusals=tuple(wrong))
    return Plan(actions=tuple(Action(f"Remove {path}", "the wanted state is absent") for path in paths))


def _refusals(wanted: Wanted, observed: Observed, reason: str) -> list[str]:
    """Every reason why an image that has to be brought cannot be."""
    refusals: list[str] = []
    origin, source, remote = wanted.origin, observed.source, observed.remote
    because = reason.rstrip(".")
    if origin is None:
        refusals.append(f"{because}. No src says where to get it from.")
    elif wanted.pull == "never":
        refusals.append(f"{because}. pull is never: bring it there, or let it be pulled.")
    if wanted.by_runtime and observed.runtime is None:
        refusals.append(
            f"{because}. Only Apptainer can pull from {wanted.origin.kind if wanted.origin else ''}://, and this host "
            "has neither apptainer nor singularity."
        )
    size = remote.size or 0 if remote else 0
    if origin and origin.kind == "file":
        if source is None:
            refusals.append(f"{because}. src is the same file, so it cannot be brought from there.")
        elif source.kind == "absent":
            refusals.append(f"{source.path} is not there; src must be a SIF file on the host.")
        elif source.problem:
            refusals.append(source.problem)
        elif source.sha256 and wanted.sha256 and source.sha256 != wanted.sha256:
            refusals.append(f"{source.path} has the sha256 {source.sha256}, and {wanted.sha256} is wanted. Check both.")
        size = source.size if source else 0
    if remote and remote.sha256 and wanted.sha256 and remote.sha256 != wanted.sha256:
        refusals.append(
            f"{origin.shown if origin else 'src'} is {remote.digest} now, whose file has the sha256 {remote.sha256}, "
            f"and {wanted.sha256} is wanted. Check both."
        )
    if observed.room.problem:
        refusals.append(observed.room.problem)
    elif size:
        # The file, its record, and what it lies in until it is whole.
        refusals += lacks(observed.room, size * (BUILD_COPIES if wanted.by_runtime else 1), 4)
    return refusals


def _source_of_kept(wanted: Wanted, observed: Observed) -> dict[str, Any]:
    """What the record of an image that stays is to say about where it is from."""
    origin, seen, remote = wanted.origin, observed.image, observed.remote
    if origin is None or not seen.sha256:
        return dict(seen.source)
    if origin.kind == "file":
        same = observed.source is not None and observed.source.sha256 == seen.sha256
        return file_source(origin, observed.source) if same else dict(seen.source)
    if remote and remote.sha256 == seen.sha256:
        return {"url": origin.shown, "digest": remote.digest}
    now = origin.pin or (remote.digest if remote else None)
    if now and now == known_digest(origin, seen):
        return {"url": origin.shown, "digest": now}
    return dict(seen.source)


def file_source(origin: Origin, source: SeenImage | None) -> dict[str, Any]:
    """What a record says about an image that was copied on the host; the stamp saves reading the source again."""
    return {"src": origin.shown, "stamp": list(source.stamp) if source else []}


def _is_news_to_record(wanted: Wanted, observed: Observed, source: Mapping[str, Any]) -> bool:
    seen = observed.image
    if seen.kind != "file" or seen.sha256 is None:
        return False
    verified = wanted.public_key is not None and seen.details.get("signed_by") != observed.key
    return not seen.trusted or seen.read_since_ns is not None or dict(seen.source) != dict(source) or verified
