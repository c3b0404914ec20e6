# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the known causes of a failed start from plugins/module_utils/_gate/causes into docs/troubleshooting.md.

Usage: causes.py [--check]; --check writes nothing and exits with 1 if the page differs. `make causes` calls it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import causes  # noqa: E402
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.causes import (  # noqa: E402
    container,
    model,
    server,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.causes.cause import Cause  # noqa: E402

PAGE = ROOT / "docs" / "troubleshooting.md"
WIDTH = 98
# By the name in the page's markers.
GROUPS: dict[str, Iterable[Cause]] = {
    "container": container.CONTAINER,
    "arguments": server.SERVER,
    "model": model.MODEL,
    "gpus": (*server.DEVICE, *server.WEAK, causes.XID),
    "context": server.CONTEXT,
    "other": (causes.OOM, *causes.STATUSES.values()),
}
LIST = re.compile(r"(?<=^<!-- causes: )(\w+)( -->\n).*?(?=^<!-- end -->$)", re.DOTALL | re.MULTILINE)


def item(cause: Cause) -> str:
    """One cause as an item of a list: what the message says, with … for each value, and the remedy."""
    template = f"{cause.text}: {cause.detail}" if cause.detail else cause.text
    text = f"**{re.sub(r'{[a-z_]+}', '…', template)}.** {cause.remedy}"
    return textwrap.fill(
        text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def written(page: str) -> str:
    """The page with the list of each group as the causes are now."""

    def of_group(marker: re.Match[str]) -> str:
        items = "\n".join(item(cause) for cause in GROUPS[marker[1]])
        return f"{marker[1]}{marker[2]}\n{items}\n\n"

    return LIST.sub(of_group, page)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    before = PAGE.read_text(encoding="utf-8")
    after = written(before)
    missing = GROUPS.keys() - {marker[1] for marker in LIST.finditer(before)}
    if missing:
        print(f"{PAGE.relative_to(ROOT)} has no marker for {', '.join(sorted(missing))}.")
        return 1
    if "--check" in arguments and after != before:
        print(f"{PAGE.relative_to(ROOT)} does not match _gate/causes. Run: make causes")
        return 1
    if after != before:
        PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
