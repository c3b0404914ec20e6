# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of an instance: which file it is, what has to be done to bring it, and the facts about it.

Private to gpufleet.llamacpp; may change at any time.

sif_image's own code looks at an image, plans and brings it. This file adds the name of the image, and the facts that
the instance's record holds. They are true as long as the file's stat is the same, so that a re-run asks no registry and
reads nothing of the image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..._host import layout, runtime
from ..._result import Action, OperatorError, Problem, Refusal
from .. import file_record
from ..downloads import Downloads
from ..file_record import FileRecord
from ..option_names import LLAMACPP_INSTANCE
from ..registry.auth import credentials_from
from ..seen_file import SeenFile
from ..staging import space
from . import inspect as image_inspect
from . import naming
from .apply import apply
from .decide import ImageDecision, decide
from .inspect import Remember
from .observe import SeenImage, look
from .plan import ImagePlan
from .sources import source_of
from .sources.source import ImageAccess, ImageSource, PublishedImage, RunCommand
from .spec import ImageSpec

# The facts about an image's inside that its record holds, and an instance's record keeps.
LEARNED = ("build", "options_digest")


@dataclass(frozen=True)
class ImageRequest:
    """What the options say about the image. ``last`` is what the instance's record has of its image."""

    image: str
    sha256: str | None
    pull: str
    home: str
    last: Mapping[str, Any]
    access: ImageAccess


@dataclass(frozen=True)
class Image:
    """The path of the image, now or once it was brought. ``source`` is its address without secrets.

    ``digest`` is that of its manifest, ``sha256`` the one that its file must have, where they are known. ``decision``
    is what has to be done to bring it.
    """

    path: str
    source: str | None = None
    digest: str | None = None
    sha256: str | None = None
    decision: ImageDecision | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def actions(self) -> list[Action]:
        """What has to be done to bring it."""
        return list(self.decision.plan.actions) if self.decision else []

    @property
    def comes(self) -> bool:
        """Whether it has to be brought first, so that it cannot be asked anything yet."""
        return bool(self.actions)


def access_of(
    params: Mapping[str, Any], run: RunCommand, ready: Callable[[], bool], hide: Callable[[str], object]
) -> ImageAccess:
    """The access to the image's source, by the options. ``hide`` keeps a secret out of all output. Raises Refusal."""
    credentials, address, auth_file = None, params["image"] or "", params["image_auth_file"]
    host = source_of(address, "image").registry_host if auth_file and naming.is_address(address) else None
    if auth_file and host:
        try:
            credentials = credentials_from(auth_file, host, "image_auth_file")
        except OperatorError as error:
            raise Refusal(error.problems) from error
        if credentials:
            hide(credentials.password)
    downloads = Downloads(ca_path=params["image_ca_path"])
    return ImageAccess(run, ready, downloads, credentials, params["image_no_https"], LLAMACPP_INSTANCE)


def locate(request: ImageRequest) -> Image:
    """Which file the image is. Asks the network only where neither a digest nor a record is enough. Raises OSError."""
    if not naming.is_address(request.image):
        return Image(naming.path_of(request.image, request.home), sha256=request.sha256)
    source = source_of(request.image, "image")
    try:
        return _located(request, source)
    except OperatorError as error:
        return Image(_unknown(request, source), source.shown, problems=_about_image(error.problems))


def _about_image(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return tuple(replace(problem, option=problem.option or "image") for problem in problems)


def _unknown(request: ImageRequest, source: ImageSource) -> str:
    return naming.place(request.home, source, request.sha256 or source.pin)


def _located(request: ImageRequest, source: ImageSource) -> Image:
    published = None
    known = None if request.sha256 else _on_record(request, source)
    if request.sha256 or not source.can_be_asked or (source.is_built and source.pin):
        # Its name is known already.
        sha256, digest = request.sha256, source.pin
    elif known and (request.pull != "always" or source.pin):
        sha256, digest = known.sha256, known.source.get("digest")
    elif request.pull == "never":
        text = f"{source.shown} is not on this host, and pull is never"
        problem = Problem("image", text, "Bring it there, or let it be pulled.")
        return Image(_unknown(request, source), source.shown, problems=(problem,))
    elif not request.access.ready():
        return _unasked(request, source)
    else:
        seen = SeenFile("", sha256=known.sha256, record=known) if known else SeenFile("")
        published = source.identify(seen, request.access)
        digest = published.digest
        sha256 = known.sha256 if known and known.source.get("digest") == digest else published.sha256
    if source.is_built:
        sha256 = None
    return _decided(request, source, digest, sha256, published)


def _decided(
    request: ImageRequest,
    source: ImageSource,
    digest: str | None,
    sha256: str | None,
    published: PublishedImage | None,
) -> Image:
    """The image under its name, and what has to be done to bring it."""
    path = naming.place(request.home, source, digest if source.is_built else sha256)
    found = Image(path, source.shown, digest, sha256)
    if is_last(path, request.last) and sha256 in (None, request.last.get("sha256")):
        return replace(found, digest=digest or request.last.get("digest"))
    decision = decide(_spec(request, path, source.pinned(digest), sha256), request.access, published)
    seen = decision.seen
    warnings: tuple[str, ...] = ()
    if seen.unasked:
        warnings = (f"image: {source.shown} was not asked for, as requests is not on the host yet.",)
    known = seen.published.digest if seen.published else seen.file.source.get("digest")
    problems = _about_image(decision.plan.refusals)
    return replace(
        found,
        digest=digest or known,
        decision=None if problems else decision,
        problems=problems,
        warnings=warnings,
    )


def _spec(request: ImageRequest, path: str, source: ImageSource, sha256: str | None) -> ImageSpec:
    return ImageSpec(path, pull=request.pull, source=source, sha256=sha256, names=LLAMACPP_INSTANCE)


def _unasked(request: ImageRequest, source: ImageSource) -> Image:
    """An image of which nothing is known: in check mode, before the library for the network is on the host."""
    path = _unknown(request, source)
    seen = SeenImage(SeenFile(path), space(os.path.dirname(path)))
    plan = ImagePlan(actions=(Action(f"Pull {source.shown} to {path}", f"{path} is not there"),), bring=True)
    decision = ImageDecision(_spec(request, path, source, None), seen, plan)
    warning = f"image: which one {source.shown} is now was not asked, as requests is not on the host yet."
    return Image(path, source.shown, decision=decision, warnings=(warning,))


def _on_record(request: ImageRequest, source: ImageSource) -> FileRecord | None:
    """The record of an unchanged file in the home that came from the address; the newest one."""
    last = request.last
    recorded = {"url": last.get("source"), "digest": last.get("digest")}
    if _is_from(source, recorded) and is_last(last.get("path"), last):
        return FileRecord(0, 0, 0, 0, str(last["sha256"]), recorded)
    for path, record in _records(os.path.join(request.home, layout.SHARED)):
        digest = record.source.get("digest") if source.is_built else record.sha256
        if _is_from(source, record.source) and path == naming.place(request.home, source, digest):
            seen = look(path)
            if not seen.problems and seen.sha256 == record.sha256:
                return record
    return None


def _is_from(source: ImageSource, recorded: Mapping[str, Any]) -> bool:
    """Whether a record names this source: by the digest if the address has one."""
    if source.pin:
        return source.digest_in(recorded) == source.pin
    return bool(recorded.get("url") == source.shown)


def _records(folder: str) -> Iterator[tuple[str, FileRecord]]:
    try:
        names = os.listdir(os.path.join(folder, layout.IMAGE_RECORDS))
    except OSError:
        return
    paths = [os.path.join(folder, name[: -len(".json")]) for name in names if name.endswith(".json")]
    found = [(path, file_record.last_record(path, layout.IMAGE_RECORDS)) for path in paths]
    sound = [(path, record) for path, record in found if record]
    yield from sorted(sound, key=lambda pair: pair[1].recorded_ns, reverse=True)


def is_last(path: str | None, last: Mapping[str, Any]) -> bool:
    """Whether the file is the one in the instance's record, by its stat, or by its content if only the stat changed.

    Raises OSError.
    """
    if path is None or last.get("path") != path:
        return False
    stamp = file_record.stamp(path)
    if stamp is None or stamp == last.get("stamp"):
        return stamp is not None
    seen = look(path)
    return not seen.problems and seen.sha256 is not None and seen.sha256 == last.get("sha256")


def bring(image: Image, access: ImageAccess) -> Image:
    """Bring the image; a running server keeps its own file. Raises Refusal, and leaves nothing behind then."""
    decision = image.decision
    if decision is None or not (decision.plan.bring or decision.plan.record):
        return image
    try:
        applied = apply(decision, access)
    except OperatorError as error:
        raise Refusal(_about_image(error.problems)) from error
    return replace(image, sha256=applied.file.sha256, decision=None, warnings=(*image.warnings, *applied.warnings))


def facts(
    image: Image,
    server_path: str | None,
    run: runtime.Run,
    program: str | None,
    last: Mapping[str, Any],
    remember: Remember,
) -> tuple[dict[str, Any] | None, list[Problem], list[Problem]]:
    """The facts about the image for the instance's record, what is missing, and what is wrong with it.

    ``server_path``: the path of llama-server in the image, if the operator gives it; ``last``: the facts in the record
    now. ``remember`` gets the reading of an image that had to be read. Raises OSError.
    """
    if image.problems:
        return None, [], list(image.problems)
    if image.comes:
        # llama-server is probably where it was.
        return _facts(image, None, image.sha256, {"server_path": last.get("server_path")}), [], []
    stamp = file_record.stamp(image.path)
    if stamp is None:
        remedy = "Copy it to the host, or give its address."
        return None, [Problem("image", f"{image.path} is not there", remedy, image.path)], []
    same = last if last.get("path") == image.path else {}
    if not same.get("server_path") and server_path is None:
        same = {}  # the path of llama-server did not matter so far
    if same.get("stamp") == stamp:
        return _checked(image, _facts(image, stamp, same.get("sha256"), same))
    seen = look(image.path)
    if seen.problems or seen.sha256 is None or program is None:
        return None, [], list(_about_image(seen.problems))
    if same.get("sha256") == seen.sha256:
        return _checked(image, _facts(image, stamp, seen.sha256, same))
    known = {**(image_inspect.learned(seen.details) or {}), "source": seen.source.get("url") or seen.source.get("src")}
    known["digest"] = seen.source.get("digest")
    said = ""
    if not known.get("server_path"):
        reading = image_inspect.read(image_inspect.container(program, image.path), None, run)
        remember(seen.sha256, reading)
        known["server_path"], said = reading.server, reading.failure[1] if reading.failure else ""
    found, missing, problems = _checked(image, _facts(image, stamp, seen.sha256, known))
    if known["server_path"] is None and server_path is None:
        text = f"{image.path} has no llama-server on its PATH or at {', '.join(runtime.SERVER_PATHS)}"
        remedy = "Name it with server_path, or use another image."
        if said:
            text += f" ({os.path.basename(program)} says: {_plainly(said)})"
        problems.append(Problem("image", text, remedy, image.path))
    return found, missing, problems


def _plainly(said: str) -> str:
    """What a runtime prints, in one line, without what it always prints."""
    lines = [line.strip() for line in said.splitlines()]
    return " ".join(line for line in lines if not line.startswith(("INFO:", "WARNING:")))[-400:] or "nothing"


def _facts(image: Image, stamp: list[int] | None, sha256: str | None, known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "path": image.path,
        "stamp": stamp,
        "sha256": sha256,
        "server_path": known.get("server_path"),
        **{key: known.get(key) for key in LEARNED},
        "source": image.source or known.get("source"),
        "digest": image.digest or known.get("digest"),
    }


def _checked(image: Image, found: dict[str, Any]) -> tuple[dict[str, Any], list[Problem], list[Problem]]:
    if image.sha256 is None or found["sha256"] == image.sha256:
        return found, [], []
    text = f"{image.path} has the sha256 {found['sha256']}, and {image.sha256} is expected"
    remedy = "Bring the right image, or correct the sha256."
    return found, [], [Problem("image_sha256", text, remedy, image.path)]
