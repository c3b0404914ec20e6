# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user of a host's unit, asked of the kernel: who is here is nobody, whom every system has."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._preflight import service_user

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask for somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_user_that_is_not_there() -> None:
    (problem,) = service_user.missing("nobody-at-all")
    assert "no user nobody-at-all" in problem
    assert "llamacpp_host" in problem
    assert service_user.missing("root") == []
    assert service_user.missing(None) == []
    assert service_user.problems("nobody-at-all", ["/"]) == []


@as_root
def test_what_is_open_is_reached(folder: Path) -> None:
    (folder / "file").write_text("")
    paths = [str(folder), str(folder / "file"), str(folder / "not there")]
    assert service_user.problems("nobody", paths) == []
    assert os.geteuid() == 0


@as_root
def test_a_closed_folder_is_told_once_with_all_that_is_behind_it(folder: Path) -> None:
    closed = folder / "closed"
    (closed / "deep").mkdir(parents=True)
    closed.chmod(0o700)
    for name in ("a", "deep/b"):
        (closed / name).write_text("")
    (folder / "link").symlink_to(closed / "a")

    paths = [str(closed / "a"), str(closed / "deep/b"), str(closed / "a")]
    (problem,) = service_user.problems("nobody", paths)

    assert problem == (
        f"user: nobody, whom the server is to run as, may not enter {closed} (drwx------ root), and so does not reach "
        f"{closed}/a, {closed}/deep/b. Let it in (chmod o+x {closed}), keep that elsewhere, or name another user."
    )
    assert f"may not read {folder}/link (-rw-r--r-- root)" in service_user.problems("nobody", [str(folder / "link")])[0]
    assert service_user.problems("root", paths) == []
    assert service_user.problems(None, paths) == []


@as_root
def test_a_file_for_other_eyes(folder: Path) -> None:
    keys = folder / "keys"
    keys.write_text("")
    keys.chmod(0o640)
    entry = pwd.getpwnam("nobody")

    (problem,) = service_user.problems("nobody", [str(keys)])

    assert f"may not read {keys} (-rw-r----- root)." in problem
    assert f"; chmod g+rX {keys})" in problem
    os.chown(keys, 0, entry.pw_gid)
    assert service_user.problems("nobody", [str(keys)]) == []
