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
    (problem,) = service_user.check_user("nobody-at-all")
    assert problem.text == "this host has no user nobody-at-all, which the server is to run as"
    assert "llamacpp_host" in problem.remedy
    assert service_user.check_user("root") == []
    assert service_user.check_user(None) == []
    assert service_user.check_access("nobody-at-all", ["/"]) == []


@as_root
def test_what_is_open_is_reached(folder: Path) -> None:
    (folder / "file").write_text("")
    paths = [str(folder), str(folder / "file"), str(folder / "not there")]
    assert service_user.check_access("nobody", paths) == []
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
    (problem,) = service_user.check_access("nobody", paths)

    assert str(problem) == (
        f"user: nobody, which the server runs as, cannot enter {closed} (drwx------ root), so it cannot read "
        f"{closed}/a, {closed}/deep/b. Allow it (chmod o+x {closed}), move the files, or name another user."
    )
    assert problem.path == str(closed)
    assert (
        f"cannot read {folder}/link (-rw-r--r-- root)"
        in service_user.check_access("nobody", [str(folder / "link")])[0].text
    )
    assert service_user.check_access("root", paths) == []
    assert service_user.check_access(None, paths) == []


@as_root
def test_a_file_for_other_eyes(folder: Path) -> None:
    keys = folder / "keys"
    keys.write_text("")
    keys.chmod(0o640)
    entry = pwd.getpwnam("nobody")

    (problem,) = service_user.check_access("nobody", [str(keys)])

    assert problem.text.endswith(f"cannot read {keys} (-rw-r----- root)")
    assert f"; chmod g+rX {keys})" in problem.remedy
    os.chown(keys, 0, entry.pw_gid)
    assert service_user.check_access("nobody", [str(keys)]) == []
