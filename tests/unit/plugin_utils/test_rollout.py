# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a rollout: a line for each host, why it failed, and a count."""

from __future__ import annotations

from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._rollout import table

FLASH = "4403-glm-4.7-flash-q4"
MESSAGE = (
    "Failed at the proof: it answers on the CPU.\nBack on the release of 2026-01-02T03:04:05Z, serving again after 4 s."
)


def test_each_state_of_a_host() -> None:
    hosts = {
        "gpu1": {"state": "unchanged", "instances": [FLASH]},
        "gpu2": {"state": "deployed", "instances": [FLASH, "5001-deepseek"]},
        "gpu10": {"state": "failed", "instances": [FLASH], "message": MESSAGE},
        "gpu3": {"state": "lost", "instances": [FLASH]},
        "gpu4": {"state": "pending", "instances": []},
        "gpu5": {},
    }
    assert table(hosts, preview=False) == [
        "HOST   OUTCOME      INSTANCES",
        "gpu1   unchanged    4403-glm-4.7-flash-q4",
        "gpu2   deployed     4403-glm-4.7-flash-q4, 5001-deepseek",
        "gpu10  FAILED       4403-glm-4.7-flash-q4",
        "    Failed at the proof: it answers on the CPU.",
        "    Back on the release of 2026-01-02T03:04:05Z, serving again after 4 s.",
        "gpu3   LOST         4403-glm-4.7-flash-q4",
        "    The connection broke during the change. The next run checks the host first.",
        "gpu4   not reached  -",
        "    Nothing was changed on this host.",
        "gpu5   unreachable  -",
        "    No connection. Nothing was changed on this host.",
        "6 hosts: 1 deployed, 1 unchanged, 1 FAILED, 1 LOST, 1 not reached, 1 unreachable",
    ]


def test_the_preview() -> None:
    hosts = {"gpu1": {"state": "deployed", "instances": [FLASH]}}
    assert table(hosts, preview=True) == [
        "HOST  OUTCOME       INSTANCES",
        "gpu1  would change  4403-glm-4.7-flash-q4",
        "1 host: 1 would change",
    ]


def test_no_line_is_longer_than_the_terminal() -> None:
    hosts = {"gpu-a.example.org": {"state": "failed", "instances": [FLASH] * 8, "message": MESSAGE * 3}}
    assert max(map(len, table(hosts, preview=False, width=60))) <= 60
