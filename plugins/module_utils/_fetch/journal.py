# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journals of a part file: which of its bytes are durable, so that they need not be fetched again.

A journal is text. Each line has one fact and its own checksum; a line with a wrong checksum is ignored, and its bytes
are fetched again. Each process writes its own journal and reads all of them, so no lock is needed.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import socket
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from .._host.files import remove, sync_folder


@dataclass(frozen=True)
class Header:
    """What a journal is about. ``inode`` is that of the part: another file may have its name later."""

    content: str
    size: int
    chunk: int
    inode: int

    def body(self) -> str:
        return json.dumps({"format": 1, **self.__dict__}, sort_keys=True)


@dataclass
class Facts:
    """``have``: chunk -> durable bytes from its start; ``prefix``: chunk -> sha256 of the file up to its end."""

    have: dict[int, int] = field(default_factory=dict)
    prefix: dict[int, str] = field(default_factory=dict)

    def merge(self, other: Facts) -> None:
        for index, count in other.have.items():
            self.have[index] = max(count, self.have.get(index, 0))
        for index, digest in other.prefix.items():
            # If two processes disagree, one of them read something wrong: use neither.
            if self.prefix.setdefault(index, digest) != digest:
                self.prefix[index] = ""


def line(body: str) -> str:
    """``body`` with its checksum."""
    return f"{zlib.crc32(body.encode()):08x} {body}\n"


def bodies(data: bytes) -> Iterable[str]:
    """The bodies of the lines with a right checksum."""
    for raw in data.split(b"\n")[:-1]:
        checksum, dummy, body = raw.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(body):
            yield body.decode("utf-8", "replace")


def read(data: bytes, header: Header) -> Facts | None:
    """The facts in a journal; None if it is about another part."""
    facts = Facts()
    lines = iter(bodies(data))
    if next(lines, None) != header.body():
        return None
    for body in lines:
        words = body.split(" ")
        if words[0] == "have":
            index, count = int(words[1]), int(words[2])
            facts.have[index] = max(count, facts.have.get(index, 0))
        elif words[0] == "prefix":
            facts.prefix[int(words[1])] = words[2]
    return facts


def host_name() -> str:
    """This host's name, as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32] or "host"


def journals(part: str) -> list[str]:
    """The journals of all processes that fetch or fetched into ``part``."""
    return sorted(glob.glob(glob.escape(part) + ".journal.*"))


def owner_may_run(path: str) -> bool:
    """Whether the process in the name of ``path`` may be running. Always true for a process of another host."""
    found = re.search(r"\.(?:journal|done)\.([A-Za-z0-9-]+)\.(\d+)(?:\.[0-9a-f]+)?$", path)
    if not found or found[1] != host_name():
        return True
    try:
        os.kill(int(found[2]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def gather(part: str, header: Header) -> Facts:
    """The facts of all journals beside ``part``. Raises OSError only if the folder cannot be read."""
    facts = Facts()
    for path in journals(part):
        try:
            with open(path, "rb") as file:
                found = read(file.read(), header)
        except OSError:
            continue  # its owner may just have removed it
        if found is not None:
            facts.merge(found)
    return facts


class Journal:
    """The journal of this process. Every method may be called by any thread."""

    def __init__(self, part: str, header: Header, facts: Facts) -> None:
        """Create it with the known facts, durably. Raises OSError."""
        self.path = f"{part}.journal.{host_name()}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._handle = os.open(self.path, flags, 0o644)
        except FileExistsError:  # of an earlier process with this number, or of one in another container
            self.path += f".{secrets.token_hex(4)}"
            self._handle = os.open(self.path, flags, 0o644)
        self._lock = threading.Lock()
        self._open = True
        self._have: dict[int, int] = {}
        prefixes = [f"prefix {index} {digest}" for index, digest in facts.prefix.items() if digest]
        self._append([header.body(), *prefixes], False)
        self.record(facts.have.items())
        sync_folder(os.path.dirname(self.path) or ".")

    def record(self, have: Iterable[tuple[int, int]]) -> None:
        """Record durably that these (chunk, bytes from its start) are durable. Raises OSError."""
        news = [(index, count) for index, count in have if count > self._have.get(index, 0)]
        self._have.update(news)
        self._append([f"have {index} {count}" for index, count in news], True)

    def note(self, index: int, digest: str) -> None:
        """Record the sha256 of the file up to the end of chunk ``index``. The next record() makes this durable."""
        self._append([f"prefix {index} {digest}"], False)

    def _append(self, lines: list[str], sync: bool) -> None:
        data = "".join(map(line, lines)).encode()
        with self._lock:
            if not self._open:
                return
            while data:
                data = data[os.write(self._handle, data) :]
            if sync:
                os.fdatasync(self._handle)

    def close(self) -> None:
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._handle)

    def remove(self) -> None:
        self.close()
        remove(self.path)
