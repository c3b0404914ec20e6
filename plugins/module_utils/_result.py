# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of every module's result: actions and their reasons, problems, the resource, and the diff.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Action:
    """One change of the host: what is done, and why. Both are phrases without a final period."""

    what: str
    why: str


@dataclass(frozen=True)
class Problem:
    """What forbids a change. It stays data until a module's edge, where ``str()`` makes it a sentence.

    ``option``: the module's option that the problem is about, "" for none. ``text``: what was found and what was
    expected, without a final period. ``remedy``: what to do, in whole sentences. ``path``: the file or folder that the
    problem is about. ``may_pass``: another instance causes it, and a change of that instance can end it. ``subject``:
    the instance or model, where a result is about several.
    """

    option: str
    text: str
    remedy: str = ""
    path: str | None = None
    may_pass: bool = False
    subject: str = ""

    def __str__(self) -> str:
        """The problem as a sentence for the operator."""
        heads = "".join(f"{head}: " for head in (self.subject, self.option) if head)
        return f"{heads}{self.text}. {self.remedy}".rstrip()

    def as_dict(self) -> dict[str, str]:
        """The problem as a module returns it."""
        value = {"option": self.option, "problem": self.text, "remedy": self.remedy}
        return {**value, "subject": self.subject} if self.subject else value


class OperatorError(Exception):
    """Base of all errors that an operator can put right. The message is rendered from the problems.

    A plain text stands for a problem that is about no option: ``OperatorError("the disk is full")``.
    """

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem("", problem) if isinstance(problem, str) else problem for problem in problems)
        super().__init__(sentences(self.problems))

    def as_failure(self) -> dict[str, Any]:
        """The arguments of ``fail_json``: the message, and the same as data."""
        return {"msg": str(self), "problems": [problem.as_dict() for problem in self.problems]}


class Refusal(OperatorError):
    """Every problem that forbids the change, found before anything was changed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(*problems)


def sentences(problems: Sequence[Problem]) -> str:
    """All problems as one message: a single one as it is, several as a numbered list."""
    if len(problems) == 1:
        return str(problems[0])
    numbered = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
    return f"{len(problems)} problems, nothing was changed:\n{numbered}"


def failure(problems: Sequence[Problem]) -> dict[str, Any]:
    """The arguments of ``fail_json`` for these problems."""
    return OperatorError(*problems).as_failure()


def diff_of(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, str]:
    """The before and after that ``--diff`` shows, as JSON with one value a line."""
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
        # --diff shows nothing else of the result, and its reader wants the reasons too.
        more["diff"] = {**more["diff"], "prepared": "".join(f"{reason}\n" for reason in reasons)}
    return {
        "changed": bool(actions),
        "actions": [action.what for action in actions],
        "reasons": reasons,
        key: dict(resource),
        **more,
    }
