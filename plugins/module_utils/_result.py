# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one shape of every module's result: actions, their reasons, the resource, and the diff.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Action:
    """One thing to do on the host: what, in words an operator reads, and why."""

    what: str
    why: str


class Refusal(Exception):
    """Every problem that forbids the change, found before anything was touched."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(sentences(problems))
        self.problems = tuple(problems)


def sentences(problems: Sequence[str]) -> str:
    """All problems as one message: a single sentence as it is, several as a numbered list."""
    if len(problems) == 1:
        return problems[0]
    numbered = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
    return f"{len(problems)} problems, nothing was changed:\n{numbered}"


def diff_of(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, str]:
    """The before and after that ``--diff`` shows, as sorted JSON with one value a line."""
    return {
        "before": json.dumps(before, indent=2, ensure_ascii=False) + "\n",
        "after": json.dumps(after, indent=2, ensure_ascii=False) + "\n",
        "before_header": f"{name} (now)",
        "after_header": f"{name} (wanted)",
    }


def result(actions: Sequence[Action], resource: Mapping[str, Any], key: str, **more: Any) -> dict[str, Any]:
    """What a module returns: ``changed`` is true exactly when there are actions."""
    reasons = list(dict.fromkeys(action.why for action in actions))
    if reasons and "diff" in more:
        # Of all that is returned --diff shows this alone, and whoever reads it wants to know why.
        more["diff"] = {**more["diff"], "prepared": "".join(f"{reason}\n" for reason in reasons)}
    return {
        "changed": bool(actions),
        "actions": [action.what for action in actions],
        "reasons": reasons,
        key: dict(resource),
        **more,
    }
