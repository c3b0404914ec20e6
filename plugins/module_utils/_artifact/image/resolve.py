# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of an instance: which file it is, what it takes to have it there, and what is known of it.

Private to gpufleet.llamacpp; may change at any time.

How an image is looked at, decided on and brought is sif_image's own code (_artifact/image*.py). What is added here is
its name, and what the instance's record knows: that holds as long as the file's stat is the same, so that a re-run asks
no registry and reads nothing of the image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..._fetch.source import FetchError
from ..._host import layout, runtime
from ..._result import Action, Problem, Refusal
from .. import file_record
from ..registry.auth import credentials_from
from . import apply as image_apply
from . import inspect as image_inspect
from . import naming, sif
from . import observe as image_observe
from . import plan as image_plan
from .fetch import Network
from .inspect import Remember
from .signature import Run
from .sources import Origin, origin_of

# What sif_image calls by other names than llamacpp_instance.
WORDS = {
    "Check src": "Check image",
    "username and password, or auth_file": "image_auth_file",
    "username and password": "image_auth_file",
    "auth_file": "image_auth_file",
    "no_https": "image_no_https",
    "ca_path": "image_ca_path",
}
# What an image's record knows of its inside, and an instance's record keeps.
LEARNED = ("build", "options_digest")


@dataclass(frozen=True)
class Asked:
    """What the options say about the image, and the ways to it.

    ``last`` is what the instance's record has of its image; ``may_ask`` whether there is what it takes to ask the
    network, without which only check mode goes on.
    """

    image: str
    sha256: str | None
    pull: str
    home: str
    last: Mapping[str, Any]
    run: Run
    network: Network
    may_ask: Callable[[], bool]


@dataclass(frozen=True)
class Steps:
    """What sif_image's code would do: its wish, what it saw, and its plan."""

    wanted: image_plan.Wanted
    observed: image_plan.Observed
    plan: image_plan.Plan


@dataclass(frozen=True)
class Image:
    """Where the image lies, or will lie, and where it is from: ``source`` as it may be shown.

    ``digest`` is that of its manifest. ``sha256`` is what its file must have, where that is known.
    """

    path: str
    source: str | None = None
    digest: str | None = None
    sha256: str | None = None
    steps: Steps | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def actions(self) -> list[Action]:
        """What has to be done to have it there."""
        return list(self.steps.plan.actions) if self.steps else []

    @property
    def comes(self) -> bool:
        """Whether it has to be brought first, so that it can be asked nothing yet."""
        return bool(self.actions)


def network_of(params: Mapping[str, Any], prepare: Callable[[], object], hide: Callable[[str], object]) -> Network:
    """How the image is reached, by the module's options. ``hide`` is told what no output may hold. Raises Refusal."""
    credentials = None
    address = params["image"] or ""
    if params["image_auth_file"] and naming.is_address(address):
        reference = origin_of(address).reference
        try:
            credentials = credentials_from(params["image_auth_file"], reference.host) if reference else None
        except ValueError as error:
            raise Refusal([Problem("", f"image_{error}".rstrip("."))]) from error
        if credentials:
            hide(credentials.password)
    return Network(credentials, params["image_no_https"], params["image_ca_path"], prepare=prepare)


def locate(asked: Asked) -> Image:
    """Which file the image is. Asks the network only where neither a digest nor a record tells. Raises OSError."""
    if not naming.is_address(asked.image):
        return Image(naming.path_of(asked.image, asked.home), sha256=asked.sha256)
    origin = origin_of(asked.image)
    try:
        return _located(asked, origin)
    except FetchError as error:
        return Image(_unknown(asked, origin), origin.shown, problems=(in_our_words(str(error)),))


def _unknown(asked: Asked, origin: Origin) -> str:
    return naming.place(asked.home, origin, asked.sha256 or origin.pin)


def _located(asked: Asked, origin: Origin) -> Image:
    remote = None
    known = None if asked.sha256 else _on_record(asked, origin)
    if asked.sha256 or origin.kind == "library" or (origin.kind == "docker" and origin.pin):
        # Its name is known already.
        sha256, digest = asked.sha256, origin.pin
    elif known and (asked.pull != "always" or origin.pin):
        sha256, digest = known.sha256, known.source.get("digest")
    elif asked.pull == "never":
        words = f"image: {origin.shown} is not on this host, and pull is never. Bring it there, or let it be pulled."
        return Image(_unknown(asked, origin), origin.shown, problems=(words,))
    elif not asked.may_ask():
        words = f"image: which one {origin.shown} is now was not asked, as requests is not on the host yet."
        return _to_ask(asked, origin, words)
    else:
        seen = image_plan.SeenImage("", sha256=known.sha256, record=known) if known else image_plan.SeenImage("")
        remote = asked.network.resolve(image_plan.want("/x", src=asked.image), seen)
        digest = remote.digest
        sha256 = known.sha256 if known and known.source.get("digest") == digest else remote.sha256
    if origin.kind == "docker":
        # Apptainer builds another file of the same image each time, so its manifest is what counts.
        sha256 = None
    return _decided(asked, origin, digest, sha256, remote)


def _decided(
    asked: Asked, origin: Origin, digest: str | None, sha256: str | None, remote: image_plan.Remote | None
) -> Image:
    """The image under its name, and what sif_image's code would do about it."""
    path = naming.place(asked.home, origin, digest if origin.kind == "docker" else sha256)
    found = Image(path, origin.shown, digest, sha256)
    if is_last(path, asked.last) and sha256 in (None, asked.last.get("sha256")):
        return replace(found, digest=digest or asked.last.get("digest"))
    pinned = origin
    if origin.reference and digest:
        # Whatever becomes of the tag from now on.
        pinned = replace(origin, reference=replace(origin.reference, digest=digest))
    wanted = replace(image_plan.want(path, pull=asked.pull, src=asked.image, sha256=sha256), origin=pinned)
    warnings = []

    def resolve(wish: image_plan.Wanted, seen: image_plan.SeenImage) -> image_plan.Remote:
        if remote:
            return remote
        if not asked.may_ask():
            warnings.append(f"image: {origin.shown} was not asked for, as requests is not on the host yet.")
            return image_plan.Remote()
        return asked.network.resolve(wish, seen)

    observed = image_observe.observe(wanted, asked.run, resolve)
    plan = image_plan.plan(wanted, observed)
    problems = tuple(in_our_words(refusal) for refusal in plan.refusals)
    from_remote = observed.remote.digest if observed.remote else observed.image.source.get("digest")
    steps = None if problems else Steps(wanted, observed, plan)
    return replace(found, digest=digest or from_remote, steps=steps, problems=problems, warnings=tuple(warnings))


def _to_ask(asked: Asked, origin: Origin, words: str) -> Image:
    """An image of which nothing is known yet: in check mode, before the host has what it takes to ask."""
    path = _unknown(asked, origin)
    wanted = image_plan.want(path, src=asked.image)
    observed = image_plan.Observed(image_plan.SeenImage(path), image_observe.room(os.path.dirname(path)))
    plan = image_plan.Plan(actions=(Action(f"Pull {origin.shown} to {path}", f"{path} is not there"),), bring=True)
    return Image(path, origin.shown, steps=Steps(wanted, observed, plan), warnings=(words,))


def _on_record(asked: Asked, origin: Origin) -> file_record.Identity | None:
    """What is known of a file in the home that came from the address and is still what it was; the newest first."""
    last = asked.last
    source = {"url": last.get("source"), "digest": last.get("digest")}
    if _is_from(origin, source) and is_last(last.get("path"), last):
        return file_record.Identity(0, 0, 0, 0, str(last["sha256"]), source)
    for path, record in _records(os.path.join(asked.home, layout.SHARED)):
        digest = record.source.get("digest") if origin.kind == "docker" else record.sha256
        if _is_from(origin, record.source) and path == naming.place(asked.home, origin, digest):
            seen = image_observe.look(path)
            if seen.problem is None and seen.sha256 == record.sha256:
                return record
    return None


def _is_from(origin: Origin, source: Mapping[str, Any]) -> bool:
    """Whether a record says that its file is what the address means, by the digest where the address has one."""
    if origin.pin:
        return source.get("digest") == origin.pin and str(source.get("url")).startswith(f"{origin.kind}://")
    return bool(source.get("url") == origin.shown)


def _records(folder: str) -> Iterator[tuple[str, file_record.Identity]]:
    try:
        names = os.listdir(os.path.join(folder, sif.RECORDS))
    except OSError:
        return
    paths = [os.path.join(folder, name[: -len(".json")]) for name in names if name.endswith(".json")]
    found = [(path, file_record.last_record(path, sif.RECORDS)) for path in paths]
    sound = [(path, record) for path, record in found if record]
    yield from sorted(sound, key=lambda pair: pair[1].recorded_ns, reverse=True)


def is_last(path: str | None, last: Mapping[str, Any]) -> bool:
    """Whether the file is the one that the instance's record knows, by its stat; or by its content, where only that
    changed. Raises OSError.
    """
    if path is None or last.get("path") != path:
        return False
    stamp = sif.stamp(path)
    if stamp is None or stamp == last.get("stamp"):
        return stamp is not None
    seen = image_observe.look(path)
    return seen.problem is None and seen.sha256 is not None and seen.sha256 == last.get("sha256")


def bring(image: Image, run: Run, network: Network, remember: Remember) -> Image:
    """Have the image there; a running server keeps its own file. Raises Refusal, and leaves nothing behind then."""
    steps = image.steps
    if steps is None or not (steps.plan.bring or steps.plan.record):
        return image
    try:
        applied = image_apply.apply(steps.wanted, steps.observed, steps.plan, run, network, remember)
    except (image_plan.ImageError, FetchError) as error:
        raise Refusal([Problem("", in_our_words(str(error)).rstrip("."))]) from error
    return replace(image, sha256=applied.image.sha256, steps=None, warnings=(*image.warnings, *applied.warnings))


def facts(
    image: Image,
    server_path: str | None,
    run: runtime.Run,
    program: str | None,
    last: Mapping[str, Any],
    remember: Remember,
) -> tuple[dict[str, Any] | None, list[Problem], list[str]]:
    """What the instance's record will have of the image, what is missing, and what is wrong with it.

    ``server_path``: where llama-server is by the operator's word; ``last``: what the record has now. Raises OSError.
    """
    if image.problems:
        return None, [], list(image.problems)
    if image.comes:
        # llama-server is where it was, most likely.
        return _facts(image, None, image.sha256, {"server_path": last.get("server_path")}), [], []
    stamp = sif.stamp(image.path)
    if stamp is None:
        remedy = "Copy it to the host, or give its address."
        return None, [Problem("image", f"{image.path} is not there", remedy, image.path)], []
    same = last if last.get("path") == image.path else {}
    if not same.get("server_path") and server_path is None:
        same = {}  # where llama-server lies did not matter so far
    if same.get("stamp") == stamp:
        return _checked(image, _facts(image, stamp, same.get("sha256"), same))
    seen = image_observe.look(image.path)
    if seen.problem or seen.sha256 is None or program is None:
        return None, [], [f"image: {seen.problem}"] if seen.problem else []
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
        problems.append(
            f"image: no llama-server was found in {image.path} (looked on the image's PATH and at "
            f"{', '.join(runtime.SERVER_PATHS)}). Name it with server_path, or use another image."
            + (f" {os.path.basename(program)} said: {_plainly(said)}" if said else "")
        )
    return found, missing, problems


def _plainly(said: str) -> str:
    """What a runtime says, in one line, without what it says to everything."""
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


def _checked(image: Image, found: dict[str, Any]) -> tuple[dict[str, Any], list[Problem], list[str]]:
    if image.sha256 is None or found["sha256"] == image.sha256:
        return found, [], []
    words = f"image_sha256: {image.path} has {found['sha256']}, wanted is {image.sha256}. Bring the right image, or "
    return found, [], [f"{words}correct the number."]


def in_our_words(text: str) -> str:
    """A sentence of sif_image, about the options of llamacpp_instance."""
    pattern = "|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))
    return "image: " + re.sub(rf"\b(?:{pattern})\b", lambda found: WORDS[found.group()], text)
