# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each host of a rollout is, as a table for a terminal.

Private to gpufleet.llamacpp; may change at any time. The role llamacpp (tasks/prepare.yml, tasks/rollout.yml) keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._status import line, wrap

HEAD = ("HOST", "OUTCOME", "INSTANCES")
# What a host's state is called, and what that means for it.
STATES = {
    "deployed": ("deployed", ""),
    "unchanged": ("unchanged", ""),
    "failed": ("FAILED", ""),
    "lost": ("LOST", "The connection broke while it was changed. The next run looks at what became of it."),
    "to do": ("not reached", "Untouched: it runs what it ran before."),
    "unreachable": ("unreachable", "Untouched: there was no connection to begin with."),
}
FORETOLD = {"deployed": ("would change", ""), "failed": ("WOULD FAIL", "")}


def table(hosts: Mapping[str, Mapping[str, Any]], foretold: bool, width: int = 80) -> list[str]:
    """The lines of the table, and a last one that counts.

    ``hosts``: by name, in the order of the rollout, ``state``, ``instances`` (names) and ``said`` (why it failed); a
    host of which nothing is known was never reached. ``foretold``: nothing was done, in check mode.
    """
    states = {**STATES, **FORETOLD} if foretold else STATES
    rows, counts = [], dict.fromkeys((word for word, dummy in states.values()), 0)
    for host, found in hosts.items():
        word, means = states[found.get("state", "unreachable")]
        counts[word] += 1
        said = [text for text in (found.get("said") or means).splitlines() if text.strip()]
        rows.append(((host, word, ", ".join(found.get("instances") or ["-"])), said))
    widths = [max(len(cells[column]) for cells in [HEAD, *(cells for cells, dummy in rows)]) for column in range(2)]
    widths.append(max(width - sum(widths) - 4, 20))
    lines = [line(HEAD, widths)]
    for cells, said in rows:
        lines.append(line(cells, widths))
        for text in said:
            lines += wrap(f"    {text}", width)
    counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return [*lines, f"{len(hosts)} hosts: {counted}" if len(hosts) != 1 else f"1 host: {counted}"]
