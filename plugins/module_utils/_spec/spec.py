# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator asked an instance to be: pure data in canonical form, checked as far as no host is needed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._artifact.image import naming
from .._host import layout
from .._llama.argv import spelled
from .._llama.options import OPENS, UNUSABLE
from .._result import Problem, Refusal
from .options import BY_NAME, OPTIONS, OWNED, PLAIN, RECORDED, Option

# States that need a whole spec; for the others the record on the host is enough.
WHOLE_STATES = ("started", "restarted", "present")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GPU = re.compile(r"\d+|GPU-[0-9a-fA-F-]+")
LONG_OPTION = re.compile(r"--[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Spec:
    """One declared instance. Paths are absolute; args is an argument list, one element an argument.

    ``image`` is an address until the image is resolved to a file. ``plain``: the options that go to llama-server as
    they are, by name, those that are set.
    """

    name: str
    image: str
    model: str
    port: int
    host: str
    gpus: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    binds: tuple[str, ...]
    api_key_file: str | None
    server_path: str | None
    manager: str
    user: str
    drain_timeout: int
    plain: tuple[tuple[str, str | int], ...] = ()

    def value(self, name: str) -> Any:
        """The value of a recorded option; None where it is not set."""
        return dict(self.plain).get(name) if BY_NAME[name].plain else getattr(self, name)

    def as_dict(self) -> dict[str, Any]:
        """The form that is recorded on the host: JSON types only."""
        values = {option.name: self.value(option.name) for option in RECORDED}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**lists, "env": dict(self.env)}


def split_args(entries: Sequence[str]) -> list[str]:
    """Argument list of ``["--jinja", "--temp 1.0"]``: an entry that starts with a dash is an option and, behind its
    first blank, one value taken as it stands; any other entry is one argument. No shell, no quoting.
    """
    argv: list[str] = []
    for entry in entries:
        argv.extend(entry.split(None, 1) if entry.startswith("-") else [entry])
    return argv


def check_name(name: str) -> list[Problem]:
    """Problems of an instance's name, which is also the name of its folder and of its unit."""
    if not NAME.fullmatch(name) or ".." in name:
        return [
            Problem(
                "name",
                f"{name!r} cannot be a folder's name",
                "Use letters, digits, dot, dash and underscore, at most 64, beginning with a letter or digit, without "
                "'..'.",
            )
        ]
    if name in layout.RESERVED:
        return [Problem("name", f"{name!r} is a name that the home itself uses", "Choose another name.")]
    return []


def _check_value(option: Option, value: Any) -> list[Problem]:
    """The range of a number, and the form of a text."""
    if value is None:
        return []
    if option.bounds:
        low, high, unit = option.bounds
        if not low <= value <= high:
            return [Problem(option.name, f"{value} is out of range", f"Choose {low} to {high} ({unit}).")]
    if option.accepts and not option.accepts(value):
        return [Problem(option.name, f"{value!r} has to be {option.expected}")]
    return []


def _check_path(option: str, value: str | None) -> list[Problem]:
    if value is None:
        return []
    if not value.startswith("/") or ".." in value.split("/") or any(ord(letter) < 32 for letter in value):
        return [Problem(option, f"{value!r} has to be an absolute path without '..' and without control characters")]
    return []


def _check_bound(option: str, path: str | None, bound: str) -> list[Problem]:
    """A path that the container gets by --bind, where a comma and a colon have a meaning of their own."""
    if path is None or not re.search("[:,]", bound):
        return []
    text = f"{path!r} cannot be seen by the container: --bind takes no ':' and ','"
    return [Problem(option, text, "Rename the folder.")]


def _check_bind(bind: str) -> list[Problem]:
    parts = bind.split(":")
    sound = all(part.startswith("/") for part in parts[:2]) and "," not in bind
    if sound and (len(parts) <= 2 or parts[2:] in (["ro"], ["rw"])):
        return [problem for part in parts[:2] for problem in _check_path("binds", part)]
    text = f"{bind!r} has to be /on/host:/in/container or /on/host:/in/container:ro, without a comma"
    return [Problem("binds", text)]


def check_image(image: str, sha256: str | None, pull: str) -> list[Problem]:
    """Problems of the options that say which image."""
    problems = naming.problems(image, sha256, pull)
    return problems if naming.is_address(image) else [*problems, *_check_path("image", naming.path_of(image, "/"))]


def _check_gpus(gpus: Sequence[str]) -> list[Problem]:
    problems = [
        Problem("gpus", f"{gpu!r} is neither an index such as 0 nor a UUID (GPU-...)", "nvidia-smi -L lists both.")
        for gpu in gpus
        if not GPU.fullmatch(gpu)
    ]
    if len(set(gpus)) < len(gpus):
        problems.append(Problem("gpus", f"{','.join(gpus)} names a GPU twice", "Name each once."))
    return problems


def _check_env(env: Mapping[str, Any], allowed: Sequence[str], owned: Mapping[str, str]) -> list[Problem]:
    problems = []
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            text = f"{name!r} cannot be a variable's name"
            problems.append(Problem("env", text, "Use letters, digits and underscores."))
        else:
            problems += _check_option("env", name, name, allowed, owned)
        if "\0" in str(value):
            problems.append(Problem("env", f"the value of {name} holds a NUL byte", "Take it out."))
    return problems


def _check_args(argv: Sequence[str], allowed: Sequence[str], owned: Mapping[str, str]) -> list[Problem]:
    problems = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        # What stands behind the sign may be a secret, so of these options only the name is shown.
        option = spelled(name)
        found = _check_option("args", name, option, allowed, owned)
        problems += found
        if not found and equals and LONG_OPTION.fullmatch(option):
            problems.append(
                Problem("args", f"llama-server has no option {argument!r}", f"Write {name + ' ' + value!r}.")
            )
        if "\0" in argument:
            problems.append(Problem("args", f"{argument!r} holds a NUL byte", "Take it out."))
    return problems


def _check_option(where: str, shown: str, name: str, allowed: Sequence[str], owned: Mapping[str, str]) -> list[Problem]:
    """An option of llama-server, or its variable, by what is known of it without an image."""
    if name in owned:
        return [Problem(where, f"{shown} is what the option {owned[name]} is for", "Set it there.")]
    if name in UNUSABLE:
        unusable = UNUSABLE[name]
        return [Problem(where, f"{shown} cannot be used: {unusable.why}", unusable.remedy)]
    if name in OPENS and OPENS[name].name not in allowed:
        opening = OPENS[name]
        remedy = f"If that is wanted, write {opening.name} into allow_options; else take it out."
        return [Problem(where, f"{shown} {opening.does}", remedy)]
    return []


def _check_allowed(allowed: Sequence[str]) -> list[Problem]:
    names = dict.fromkeys(opening.name for opening in OPENS.values())
    return [
        Problem(
            "allow_options",
            f"{name!r} is none of the options that have to be allowed",
            f"These are {', '.join(names)}.",
        )
        for name in allowed
        if name not in OPENS
    ]


def check(params: Mapping[str, Any]) -> list[Problem]:
    """Every problem of the options that can be seen without looking at the host."""
    model, key_file = params["model"], params["api_key_file"]
    problems = check_name(params["name"])
    problems += check_image(params["image"], params["image_sha256"], params["pull"])
    for option in ("model", "api_key_file", "server_path"):
        problems += _check_path(option, params[option])
    problems += _check_bound("model", model, os.path.dirname(model))
    problems += _check_bound("api_key_file", key_file, key_file or "")
    problems += [problem for row in OPTIONS for problem in _check_value(row, params[row.name])]
    problems += _check_gpus([str(gpu) for gpu in params["gpus"] or []])
    allowed = [spelled(name) for name in params["allow_options"]]
    problems += _check_allowed(allowed)
    allowed = [OPENS[name].name for name in allowed if name in OPENS]
    owned = {word: name for word, name in OWNED.items() if BY_NAME[name].exclusive or params[name] is not None}
    problems += _check_args(split_args(params["args"]), allowed, owned)
    problems += _check_env(params["env"], allowed, owned)
    for bind in params["binds"]:
        problems += _check_bind(bind)
    return problems


def _check_places(spec: Spec, home: str) -> list[Problem]:
    """The instance's own folder is removed with it, and image and model are to stay."""
    folder = os.path.join(home, spec.name, "")
    return [
        Problem(
            option,
            f"{path} is in the instance's own folder {folder}, which is removed with it",
            "Put it elsewhere.",
            path=path,
        )
        for option, path in (("image", spec.image), ("model", spec.model))
        if os.path.normpath(path).startswith(folder)
    ]


def canonical(params: Mapping[str, Any], home: str) -> Spec:
    """The options in canonical form, whatever is wrong with them."""
    return Spec(
        name=params["name"],
        image=naming.path_of(params["image"], home),
        model=params["model"],
        port=params["port"],
        host=params["host"],
        gpus=tuple(str(gpu) for gpu in params["gpus"] or []),
        args=tuple(split_args(params["args"])),
        env=tuple((name, str(value)) for name, value in sorted(params["env"].items())),
        binds=tuple(params["binds"]),
        api_key_file=params["api_key_file"],
        server_path=params["server_path"],
        manager=params["manager"],
        user=params["user"],
        drain_timeout=params["drain_timeout"],
        plain=_plain(params),
    )


def _plain(values: Mapping[str, Any]) -> tuple[tuple[str, str | int], ...]:
    return tuple((row.name, values[row.name]) for row in PLAIN if values.get(row.name) is not None)


def parse(params: Mapping[str, Any], home: str) -> Spec:
    """The canonical spec of the module's options; raises Refusal with every problem at once."""
    problems = check(params)
    spec = canonical(params, home)
    if not check_name(spec.name):
        problems += _check_places(spec, home)
    if problems:
        raise Refusal(problems)
    return spec


def of_record(value: Mapping[str, Any]) -> Spec:
    """The spec of a record. An option that is newer than the record has its default."""
    known = {row.name: value.get(row.name, row.default) for row in RECORDED}
    lists: dict[str, Any] = {name: tuple(known[name]) for name in ("gpus", "args", "binds")}
    others: dict[str, Any] = {row.name: known[row.name] for row in RECORDED if not row.plain}
    return Spec(**{**others, **lists, "env": tuple(sorted(known["env"].items())), "plain": _plain(known)})


def can_be_looked_at(params: Mapping[str, Any], problems: Sequence[Problem]) -> bool:
    """Whether a spec with these problems still says where on the host to look for more of them."""
    shaped = any("\0" in str(word) for word in (*params["args"], *params["env"].values()))
    return not shaped and not any(BY_NAME[problem.option].shapes for problem in problems)
