# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine gets its Debian packages from: the lab builds its hosts from the same mirror."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from state import LabError, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Mirror:
    uri: str
    keyring: str


def find(etc: Path = Path("/etc/apt"), os_release: Path = Path("/etc/os-release")) -> Mirror:
    """The mirror of the machine's own release, from sources.list or sources.list.d."""
    codename = re.search(r"^VERSION_CODENAME=(\w+)", os_release.read_text(), re.M)
    suites = {codename[1], "stable"} if codename else {"stable"}
    found = list(_entries(etc))
    for uri, suite, keyring in found:
        if suite in suites:
            return Mirror(uri, keyring if keyring.startswith("/") else KEYRING)
    raise LabError(
        f"no mirror of {' or '.join(sorted(suites))} in {etc}/sources.list and {etc}/sources.list.d "
        f"(found {', '.join(f'{suite} at {uri}' for uri, suite, dummy in found) or 'nothing'}): the lab needs a Debian "
        "machine that knows its mirror"
    )


def options() -> list[str]:
    """This machine's proxies and certificates for apt, as mmdebstrap's arguments."""
    wanted = re.compile(r'Acquire::(https?::Proxy|https::CaInfo|ForceIPv[46])\b.* "[^"]+";', re.I)
    lines = run("apt-config", "dump", "Acquire").stdout.splitlines()
    return [f"--aptopt={line}" for line in lines if wanted.match(line)]


def _entries(etc: Path) -> Iterator[tuple[str, str, str]]:
    """(URI, suite, signed-by) of every enabled binary source."""
    folder = etc / "sources.list.d"
    for path in [etc / "sources.list", *sorted(folder.glob("*.list"))]:
        if path.exists():
            for line in path.read_text().splitlines():
                match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)", line.strip())
                if match:
                    signed = re.search(r"signed-by=(\S+)", match[1] or "", re.I)
                    yield match[2], match[3], signed[1] if signed else ""
    for path in sorted(folder.glob("*.sources")):
        text = re.sub(r"^#.*\n?", "", path.read_text(), flags=re.M)
        for stanza in re.split(r"\n\s*\n", text):
            fields = {name.lower(): value.strip() for name, value in re.findall(r"^([\w-]+):[ \t]*(.*)", stanza, re.M)}
            if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
                for uri in fields.get("uris", "").split():
                    for suite in fields.get("suites", "").split():
                        yield uri, suite, fields.get("signed-by", "")
