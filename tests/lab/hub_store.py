# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's model hub holds, and how it fails."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file of a repository; its content is in memory, or on the disk."""

    content: bytes | Path

    def read(self, first: int = 0, end: int | None = None) -> bytes:
        """The bytes [first, end)."""
        if isinstance(self.content, bytes):
            return self.content[first:end]
        with self.content.open("rb") as file:
            file.seek(first)
            return file.read(-1 if end is None else end - first)

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for first in range(0, self.size, 1 << 24):
            digest.update(self.read(first, first + (1 << 24)))
        return digest.hexdigest()

    @cached_property
    def blob(self) -> str:
        """What git names the content of a file outside LFS by."""
        return hashlib.sha1(b"blob %d\0" % self.size + self.read()).hexdigest()


@dataclass
class Repo:
    """A model repository: its commits, and what its branches are now. ``readers`` are tokens that may fetch it."""

    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    readers: set[str] = field(default_factory=set)

    def commit(self, files: Mapping[str, bytes | Path], branch: str = "main") -> str:
        """Make the branch hold these files; the new commit."""
        held = {name: File(content) for name, content in files.items()}
        seed = json.dumps([len(self.commits), branch, sorted(held)]).encode() + secrets.token_bytes(8)
        commit = hashlib.sha1(seed).hexdigest()
        self.commits[commit] = held
        self.branches[branch] = commit
        return commit


@dataclass
class Switches:
    """What is other than at a hub that works well."""

    url_seconds: float = 3600.0  # how long a signed address is good for
    url_uses: int | None = None  # for how many requests of the CDN it is good, for tests that do not wait
    limit: int | None = None  # requests until 429
    retry_after: int = 0
    unavailable: int = 0  # the next requests that are answered with 503
    page: int = 1000  # entries of a page of the tree
    paths_info: bool = True
    siblings: bool = True
    inline: bool = False  # give the file itself (200) where a redirect is due, as some mirrors do
    linked: bool = True  # X-Linked-Etag and X-Linked-Size
    xet: bool = False  # tell the hash of the Xet storage; the real client then asks a server for that
    login_page: bool = False  # an HTML page for every question
    moved: dict[str, str] = field(default_factory=dict)  # repositories by their old name
    flip: int | None = None  # the byte that the CDN gives wrongly
    ranges: bool = True
