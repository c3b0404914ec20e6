# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of each host of a rollout, as a table for a terminal.

Private to gpufleet.llamacpp; may change at any time. The role llamacpp (tasks/prepare.yml, tasks/rollout.yml) keeps
the states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._table import GAP, line, wrap

HEAD = ("HOST", "OUTCOME", "INSTANCES")
# By state of a host: the word in the table, and a sentence where the host has no message of its own.
STATES = {
    "deployed": ("deployed", ""),
    "unchanged": ("unchanged", ""),
    "failed": ("FAILED", ""),
    "lost": ("LOST", "The connection broke during the change. The next run checks the host first."),
    "pending": ("not reached", "Nothing was changed on this host."),
    "unreachable": ("unreachable", "No connection. Nothing was changed on this host."),
}
PREVIEW = {"deployed": ("would change", ""), "failed": ("WOULD FAIL", "")}


def table(hosts: Mapping[str, Mapping[str, Any]], preview: bool, width: int = 80) -> list[str]:
    """The lines of the table; the last one counts the hosts.

    ``hosts``: by name, in the order of the rollout, ``state``, ``instances`` (names) and ``message`` (why it failed). A
    host without a state is unreachable. ``preview``: the run was in check mode.
    """
    states = {**STATES, **PREVIEW} if preview else STATES
    rows, counts = [], dict.fromkeys((word for word, dummy in states.values()), 0)
    for host, found in hosts.items():
        word, sentence = states[found.get("state", "unreachable")]
        counts[word] += 1
        message = [text for text in (found.get("message") or sentence).splitlines() if text.strip()]
        rows.append(((host, word, ", ".join(found.get("instances") or ["-"])), message))
    widths = [max(len(cells[column]) for cells in [HEAD, *(cells for cells, dummy in rows)]) for column in range(2)]
    widths.append(max(width - sum(widths) - 2 * GAP, 20))
    lines = [line(HEAD, widths)]
    for cells, message in rows:
        lines.append(line(cells, widths))
        for text in message:
            lines += wrap(f"    {text}", width)
    counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return [*lines, f"{len(hosts)} hosts: {counted}" if len(hosts) != 1 else f"1 host: {counted}"]
