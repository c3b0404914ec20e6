# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check: the model gives the expected answers to the operator's own prompts (gate_prompts).

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
import time
from typing import Any

from ..._result import Problem
from .. import chat
from ..client import WRONG_FORMAT, ApiClient, NotInTime, NotProven, wrong_format
from ..options import Prompt
from ..server import Server

# Enough for a model that reasons before it answers. A longer answer is ended by the timeout of its prompt.
TOKENS = 1024
SHOWN = 300


def check(server: Server) -> dict[str, Any]:
    """Ask all prompts; returns the answers. Raises NotProven with every prompt that failed."""
    answers, problems = [], []
    for prompt in server.expected.gate.prompts:
        begin = time.monotonic()
        try:
            text = answer(server.api, prompt)
        except NotProven as error:
            problems += [
                Problem("gate_prompts", f"{prompt.prompt!r}: {problem.text}", problem.remedy)
                for problem in error.problems
            ]
            continue
        seconds = round(time.monotonic() - begin, 3)
        answers.append({"prompt": prompt.prompt, "answer": text[:SHOWN], "seconds": seconds})
    if problems:
        raise NotProven(*problems)
    return {"prompts": answers} if answers else {}


def answer(api: ApiClient, prompt: Prompt) -> str:
    """The answer without its reasoning. It is streamed, so that the timeout holds for the whole of it."""
    answered: list[str] = []
    reasoned: list[str] = []
    try:
        for event in api.stream(chat.CHAT, chat.request(prompt.prompt, TOKENS), prompt.timeout):
            _add(answered, reasoned, event)
    except NotInTime as error:
        so_far = "".join(answered).strip()[:SHOWN]
        text = f"the answer was not complete within {prompt.timeout} s; so far it is {so_far!r}"
        raise NotProven(Problem("", text, "Ask for something shorter, or raise its timeout.")) from error
    text = "".join(answered).strip()
    if re.search(prompt.pattern, text):
        return text
    if not text and "".join(reasoned).strip():
        raise NotProven(
            Problem(
                "",
                f"the model used {TOKENS} tokens for its reasoning and did not answer",
                "Ask something simpler, or switch the reasoning off (--reasoning off in args).",
            )
        )
    raise NotProven(
        Problem(
            "",
            f"the answer does not match {prompt.pattern!r}: {text[:SHOWN]!r}",
            "If the answer is good, correct the pattern. If not, check the model, its quantization and its template.",
        )
    )


def _add(answered: list[str], reasoned: list[str], event: Any) -> None:
    try:
        for choice in event["choices"]:
            answer_text, reasoning = chat.texts(choice["delta"])
            answered.append(answer_text)
            reasoned.append(reasoning)
    except WRONG_FORMAT as error:
        raise wrong_format("An event of the answer", event) from error
