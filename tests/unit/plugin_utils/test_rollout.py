# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of a rollout: a line for each host, why one failed, and a count."""

from __future__ import annotations

from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._rollout import table

FLASH = "4403-glm-4.7-flash-q4"
SAID = (
    "Failed at the proof: it answers on the CPU.\nBack on the release of 2026-01-02T03:04:05Z, serving again after 4 s."
)


def test_which_host_is_where() -> None:
    hosts = {
        "gpu1": {"state": "unchanged", "instances": [FLASH]},
        "gpu2": {"state": "deployed", "instances": [FLASH, "5001-deepseek"]},
        "gpu10": {"state": "failed", "instances": [FLASH], "said": SAID},
        "gpu3": {"state": "lost", "instances": [FLASH]},
        "gpu4": {"state": "to do", "instances": []},
        "gpu5": {},
    }
    assert table(hosts, foretold=False) == [
        "HOST   OUTCOME      INSTANCES",
        "gpu1   unchanged    4403-glm-4.7-flash-q4",
        "gpu2   deployed     4403-glm-4.7-flash-q4, 5001-deepseek",
        "gpu10  FAILED       4403-glm-4.7-flash-q4",
        "    Failed at the proof: it answers on the CPU.",
        "    Back on the release of 2026-01-02T03:04:05Z, serving again after 4 s.",
        "gpu3   LOST         4403-glm-4.7-flash-q4",
        "    The connection broke while it was changed. The next run looks at what became",
        "    of it.",
        "gpu4   not reached  -",
        "    Untouched: it runs what it ran before.",
        "gpu5   unreachable  -",
        "    Untouched: there was no connection to begin with.",
        "6 hosts: 1 deployed, 1 unchanged, 1 FAILED, 1 LOST, 1 not reached, 1 unreachable",
    ]


def test_what_would_be() -> None:
    hosts = {"gpu1": {"state": "deployed", "instances": [FLASH]}}
    assert table(hosts, foretold=True) == [
        "HOST  OUTCOME       INSTANCES",
        "gpu1  would change  4403-glm-4.7-flash-q4",
        "1 host: 1 would change",
    ]


def test_no_line_is_longer_than_the_terminal() -> None:
    hosts = {"gpu-a.example.org": {"state": "failed", "instances": [FLASH] * 8, "said": SAID * 3}}
    assert max(map(len, table(hosts, foretold=False, width=60))) <= 60
