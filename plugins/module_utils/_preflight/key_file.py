# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file with the API keys: whether llama-server would let in whom it should, and nobody else.

Private to gpufleet.llamacpp; may change at any time. How it reads the file: llama.cpp common/arg.cpp.
"""

from __future__ import annotations


def problems(path: str) -> list[str]:
    """Why llama-server would ignore the keys in the file, or let nobody in. It reads line by line."""
    try:
        # Python would take a carriage return for the end of a line; llama-server does not.
        with open(path, encoding="utf-8", newline="\n") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        return [f"api_key_file: {path} cannot be read ({error}). Let the user that runs this task read it."]
    lines = text.split("\n")
    keys = [line for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        return [
            f"api_key_file: {path} holds no key (it is empty or only comments), and llama-server would then serve "
            "everybody without one. Write one key a line into it."
        ]
    if any(key != key.strip() for key in keys):
        return [
            f"api_key_file: a key in {path} begins or ends with a blank or a carriage return, which llama-server "
            "takes as part of the key, so nobody gets in. Remove it (dos2unix)."
        ]
    return []
