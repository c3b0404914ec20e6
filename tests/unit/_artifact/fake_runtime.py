# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container runtime that is none: answers as Apptainer would, and keeps what it was asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of threads (see --threads-batch)
--a-very-long-option-that-needs-a-line-of-its-own N
                                        says --nothing
"""


def printed(
    server: str | None, version: tuple[int, str] = (0, ""), help_text: tuple[int, str] = (0, ""), cuda: str = ""
) -> str:
    """What the container of inspect.read prints; ``server`` None: the image has none."""
    sections = [] if server is None else [("server", (0, server)), ("version", version), ("help", help_text)]
    sections += [] if server is None else [("cuda", (0, cuda))]
    return "".join(f"\x1e{name} {status}\n{text}\n" for name, (status, text) in sections)


class FakeRuntime:
    """``pulls``: the content that a pull brings, or None where it fails; ``signed``: whether verify is content."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.environ: dict[str, str] = {}
        self.pulled_with: dict[str, str] = {}
        self.pulls: bytes | None = None
        self.signed = True
        self.takes_ring = True
        self.answers: dict[str, tuple[int, str, str]] = {
            "inspect": (0, '{"data": {"attributes": {"labels": {"title": "llama"}}}}', "INFO:    fuse2fs not found"),
            "/bin/sh": (0, "/app/llama-server\n", ""),
            "--version": (0, "version: 6123 (abcdef)\nbuilt with GNU", ""),
            "--help": (0, HELP, ""),
        }

    @property
    def verbs(self) -> list[str]:
        """The commands so far, and forgets them."""
        found = [next((word for word in argv if word in self.answers), argv[1]) for argv in self.asked]
        self.asked.clear()
        return found

    def __call__(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        self.asked.append(list(argv))
        self.environ = dict(environ or {})
        if argv[1] == "pull":
            return self._pull(argv[-2])
        if argv[1] == "verify":
            return (0, "", "") if self.signed else (255, "", "INFO:  x\nFATAL:   Failed to verify: no signature")
        if argv[1:3] == ["key", "import"]:
            if self.takes_ring:
                with open(os.path.join(self.environ["APPTAINER_KEYSDIR"], "pgp-public"), "w", encoding="utf-8") as ring:
                    ring.write("key")
            return 0, "", ""
        if "/bin/sh" in argv:
            return self._read()
        return next(answer for word, answer in self.answers.items() if word in argv)

    def _read(self) -> tuple[int, str, str]:
        code, server, err = self.answers["/bin/sh"]
        version, help_text = self.answers["--version"], self.answers["--help"]
        sections = printed(server.strip() or None, version[:2], help_text[:2])
        return code, sections if code == 0 else "", f"INFO:    x\n{err}{help_text[2]}"

    def _pull(self, target: str) -> tuple[int, str, str]:
        self.pulled_with = self.environ
        temporary = self.environ["APPTAINER_TMPDIR"]
        os.makedirs(os.path.join(temporary, "rootfs", "locked"))
        os.chmod(os.path.join(temporary, "rootfs"), 0o555)
        if self.pulls is None:
            return 255, "", "INFO: Starting\nFATAL:   While making image: s3cret-word: manifest unknown\n"
        with open(target, "wb") as file:
            file.write(self.pulls)
        return 0, "", ""
