# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of API keys: which of them would leave the door open, or shut it for everybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import key_file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no key"),
        (b"\n\n", "holds no key"),
        (b"# only\n#comments\n", "holds no key"),
        (b"  \t\n", "holds no key"),
        (b"key\r\n", "carriage return"),
        (b"key \n", "a blank"),
        (b" key\n", "a blank"),
        (b"good\nbad \n", "a blank"),
        (b"\xff\xfe", "cannot be read"),
        (b"key", None),
        (b"key\n", None),
        (b"# mine\nkey\n\nother\n", None),
    ],
)
def test_key_files(tmp_path: Path, content: bytes, said: str | None) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(content)
    found = key_file.problems(str(keys))
    assert len(found) == (0 if said is None else 1)
    assert all(str(said) in problem and str(keys) in problem for problem in found)


def test_a_key_file_that_is_a_folder(tmp_path: Path) -> None:
    (problem,) = key_file.problems(str(tmp_path))
    assert "cannot be read" in problem
