# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""observe, plan and apply together, on real files; the network is a dictionary."""

from __future__ import annotations

import builtins
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact import seen_file
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.apply import apply
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.decide import decide
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.describe import describe
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.info import inventory
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.model.preview import preview
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.staging import Staged
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.part_file import content_id, part_path
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.progress import ProgressFile
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.layout import MODEL_RECORDS
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import OperatorError
from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.model.sample import ACCESS, params
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder as build

CONTENT = build.model()
OTHER = build.model(data=build.DATA[::-1])


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Web:
    """In the place of Downloads: addresses and what they hold. Counts what was fetched."""

    def __init__(self, **contents):
        self.contents = {f"https://h/{name}.gguf": held for name, held in contents.items()}
        self.asked = []
        self.size = None
        self.progress = ProgressFile(None)

    def inspect(self, source, size=None):
        return SimpleNamespace(size=self.size or len(self.contents.get(source.url, b"")), validator=None)

    def fetch(self, sources, place, shown, *, size, sha256):
        url = sources[0].url
        self.asked.append(url)
        content = self.contents.get(url)
        if content is None:
            raise OperatorError(f"{url}: 404 Not Found")
        with open(place, "wb") as target:
            target.write(content)
        with suppress(FileNotFoundError):  # the space that was reserved for it
            os.unlink(part_path(place, content_id(sha256, None)))
        return Staged(place, digest(content), download=SimpleNamespace(validator=None))


def decision_of(path, check=False, **options):
    return decide(params(str(path), **options), ACCESS, preview=check)


def run(path, web=None, **options):
    decision = decision_of(path, **options)
    assert decision.plan.refusals == ()
    applied = apply(decision, web or Web())
    return SimpleNamespace(
        changed=bool(decision.plan.actions),
        reasons=[action.why for action in decision.plan.actions],
        model=describe(decision.spec.files[0].path, applied.files),
        warnings=applied.warnings,
    )


def refusals(path, check=False, **options):
    return [str(problem) for problem in decision_of(path, check, **options).plan.refusals]


def entries(folder):
    return sorted(
        os.path.relpath(os.path.join(top, name), folder) for top, _dirs, names in os.walk(folder) for name in names
    )


@pytest.fixture
def src(tmp_path):
    file = tmp_path / "share" / "m.gguf"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    os.utime(file, (1700000000, 1700000000))
    return file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "models" / "deep" / "m.gguf"


@pytest.fixture
def reads(monkeypatch):
    """The paths that were opened, since it was last cleared."""
    opened = []
    real_open, real_os_open = builtins.open, os.open
    monkeypatch.setattr(
        builtins, "open", lambda file, *more, **named: opened.append(str(file)) or real_open(file, *more, **named)
    )
    monkeypatch.setattr(
        os, "open", lambda file, *more, **named: opened.append(str(file)) or real_os_open(file, *more, **named)
    )
    return opened


# Bringing


def test_a_copy_is_whole_recorded_and_alone(path, src, tmp_path):
    found = run(path, src=str(src))
    assert found.changed
    assert path.read_bytes() == CONTENT
    assert entries(tmp_path / "models") == ["deep/.gguf_model/m.gguf.json", "deep/m.gguf"]
    assert os.stat(path).st_ino != os.stat(src).st_ino
    assert oct(os.stat(path).st_mode & 0o777) == "0o644"
    assert (found.model["sha256"], found.model["source"]) == (digest(CONTENT), str(src))
    assert (found.model["architecture"], found.model["size"]) == ("llama", len(CONTENT))


class SlowWeb(Web):
    """Fails, as another run of the same has taken away what had arrived."""

    def __init__(self, brought):
        super().__init__()
        self.brought = brought

    def fetch(self, sources, place, shown, *, size, sha256):
        run(shown, Web(m=self.brought), url="https://h/m.gguf", sha256=[digest(self.brought)])
        raise OperatorError("No such file or directory")


def test_a_run_that_another_overtakes_has_the_file_too(path, tmp_path):
    found = run(path, SlowWeb(CONTENT), url="https://h/m.gguf", sha256=[digest(CONTENT)])
    assert (found.model["sha256"], found.model["architecture"]) == (digest(CONTENT), "llama")
    assert entries(tmp_path / "models") == ["deep/.gguf_model/m.gguf.json", "deep/m.gguf"]
    assert not run(path, url="https://h/m.gguf", sha256=[digest(CONTENT)]).changed


def test_a_run_that_other_content_overtakes_fails_with_its_own_error(path):
    with pytest.raises(OperatorError, match="No such file"):
        run(path, SlowWeb(OTHER), url="https://h/m.gguf", sha256=[digest(CONTENT)])


def test_a_fetched_file_is_whole_recorded_and_alone(path, tmp_path):
    found = run(path, Web(m=CONTENT), url="https://h/m.gguf", sha256=[digest(CONTENT)])
    assert found.changed
    assert path.read_bytes() == CONTENT
    assert entries(tmp_path / "models") == ["deep/.gguf_model/m.gguf.json", "deep/m.gguf"]
    assert found.model["source"] == "https://h/m.gguf"


@pytest.mark.parametrize("digests", [[], [digest(CONTENT)]])
def test_a_second_run_changes_nothing_and_reads_only_the_record(path, src, reads, digests):
    for options in ({"src": str(src)}, {"url": "https://h/m.gguf"}):
        web = Web(m=CONTENT)
        first = run(path, web, sha256=digests, **options)
        reads.clear()
        second = run(path, web, sha256=digests, **options)
        assert first.changed
        assert not second.changed
        assert second.model == first.model
        assert {os.path.basename(one) for one in reads} == {"m.gguf.json"}
        run(path, state="absent")


def test_the_content_is_read_once_where_there_is_no_record(path, reads, monkeypatch):
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    os.utime(path, (1700000000, 1700000000))
    hashed = []
    real = seen_file.hash_file
    monkeypatch.setattr(seen_file, "hash_file", lambda path: hashed.append(path) or real(path))
    runs = [run(path, sha256=[digest(CONTENT)]) for dummy in range(3)]
    assert [one.changed for one in runs] == [False, False, False]
    assert hashed == [str(path)]


def test_a_changed_mode_costs_one_reading_and_no_copy(path, src):
    run(path, src=str(src))
    path.chmod(0o600)
    inode = os.stat(path).st_ino
    found = run(path, src=str(src))
    assert not found.changed
    assert found.model["source"] == str(src)
    assert os.stat(path).st_ino == inode


def test_a_touched_source_is_compared_once_and_not_copied(path, src, monkeypatch):
    run(path, src=str(src))
    os.utime(src, (1700000001, 1700000001))
    hashed = []
    real = seen_file.hash_file
    monkeypatch.setattr(seen_file, "hash_file", lambda path: hashed.append(path) or real(path))
    assert [run(path, src=str(src)).changed for dummy in range(2)] == [False, False]
    assert hashed == [str(src)]


def test_a_new_source_is_copied(path, src):
    run(path, src=str(src))
    src.write_bytes(OTHER)
    found = run(path, src=str(src))
    assert "has another content" in found.reasons[0]
    assert path.read_bytes() == OTHER


def test_damage_on_the_host_is_repaired(path, src):
    run(path, src=str(src))
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    found = run(path, src=str(src), sha256=[digest(CONTENT)])
    assert "is expected" in found.reasons[0]
    assert path.read_bytes() == CONTENT


def test_silent_damage_is_found_by_verify_always(path, src, monkeypatch):
    run(path, src=str(src))
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    # As when a disk loses bits: no time changes. A changed ctime cannot be faked, so the record is.
    monkeypatch.setattr(seen_file, "is_current", lambda path, record: True)
    assert not run(path, src=str(src), sha256=[digest(CONTENT)]).changed
    assert run(path, src=str(src), sha256=[digest(CONTENT)], verify="always").changed
    assert path.read_bytes() == CONTENT


def test_verify_never_reads_no_content(path, monkeypatch):
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setattr(seen_file, "hash_file", lambda path: pytest.fail("read"))
    found = run(path, sha256=["0" * 64], verify="never")
    assert (found.changed, found.model["sha256"], found.model["architecture"]) == (False, None, "llama")
    path.write_bytes(CONTENT[:-100])
    assert "cut short" in refusals(path, verify="never")[0]


def test_the_source_may_be_the_path_itself(path, reads):
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    link = path.parent / "link.gguf"
    os.link(path, link)
    for one in (path, link):
        assert not run(path, src=str(one), sha256=[digest(CONTENT)]).changed
    assert "No repo, url or src says where" in refusals(path, src=str(link), sha256=["0" * 64])[0]


def test_an_open_old_file_stays_whole(path, src):
    run(path, src=str(src))
    with open(path, "rb") as server:
        src.write_bytes(OTHER)
        run(path, src=str(src))
        assert server.read() == CONTENT
    assert path.read_bytes() == OTHER


def test_a_changed_address_is_fetched_again(path):
    web = Web(m=CONTENT, n=OTHER)
    run(path, web, url="https://h/m.gguf")
    found = run(path, web, url="https://h/n.gguf")
    assert "came from https://h/m.gguf" in found.reasons[0]
    assert path.read_bytes() == OTHER


def test_what_somebody_wrote_over_a_fetched_file_is_fetched_again(path):
    web = Web(m=CONTENT)
    run(path, web, url="https://h/m.gguf")
    path.write_bytes(OTHER)
    assert "no longer what came from" in run(path, web, url="https://h/m.gguf").reasons[0]
    assert path.read_bytes() == CONTENT


# Failing


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("content", "digests", "words"),
    [
        (CONTENT, ["0" * 64], f"has the sha256 {digest(CONTENT)}, and {'0' * 64} is expected"),
        (b"<html>Sign in</html>", [], "https://h/m.gguf is not a GGUF file but an HTML or XML page"),
        (CONTENT[:-100], [], "https://h/m.gguf is cut short"),
        (None, [], "404"),
    ],
)
def test_a_bad_download_leaves_everything_as_it_was(path, tmp_path, old, content, digests, words):
    if old:
        run(path, Web(old=OTHER), url="https://h/old.gguf")
    before = entries(tmp_path)
    web = Web(m=content) if content else Web()
    with pytest.raises(OperatorError) as caught:
        run(path, web, url="https://h/m.gguf", sha256=digests)
    assert words in str(caught.value)
    assert entries(tmp_path) == before
    assert not old or path.read_bytes() == OTHER


def test_a_bad_source_is_refused_before_anything_is_written(path, src, tmp_path):
    src.write_bytes(CONTENT[:-100])
    assert "is cut short" in refusals(path, src=str(src))[0]
    assert not (tmp_path / "models").exists()


def test_a_wrong_digest_of_a_source_leaves_nothing(path, src, tmp_path):
    with pytest.raises(OperatorError, match=f"has the sha256 {digest(CONTENT)}"):
        run(path, src=str(src), sha256=["0" * 64])
    assert entries(tmp_path / "models") == []


def test_check_mode_finds_a_wrong_digest_of_a_source(path, src):
    assert refusals(path, src=str(src), sha256=["0" * 64]) == []
    assert "Check both" in refusals(path, check=True, src=str(src), sha256=["0" * 64])[0]


def test_a_source_that_changes_while_it_is_copied_is_an_error(path, src, tmp_path, monkeypatch):
    real = os.fsync

    def fsync(handle):
        with open(src, "ab") as file:
            file.write(b"more")
        return real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OperatorError, match="was written to while it was being read"):
        run(path, src=str(src))
    assert entries(tmp_path / "models") == []


def test_a_full_disk_is_reported_and_leaves_nothing(path, src, tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OperatorError, match="No space left on device"):
        run(path, src=str(src))
    assert entries(tmp_path / "models") == []


def test_a_folder_that_takes_no_record_costs_a_warning(path, src):
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    (path.parent / MODEL_RECORDS).write_bytes(b"in the way")
    found = run(path, sha256=[digest(CONTENT)])
    assert not found.changed
    assert "could not be recorded" in found.warnings[0]


def test_a_killed_copy_is_cleaned_up_by_the_next(path, src, tmp_path):
    incoming = path.parent / MODEL_RECORDS / "incoming"
    incoming.mkdir(parents=True)
    (incoming / ".m.gguf.dead.copy").write_bytes(b"half")
    (incoming / ".other.gguf.dead.copy").write_bytes(b"not ours")
    run(path, src=str(src))
    assert entries(incoming) == [".other.gguf.dead.copy"]


def test_a_live_copy_of_another_process_is_left_alone(path, src):
    incoming = path.parent / MODEL_RECORDS / "incoming"
    incoming.mkdir(parents=True)
    live = incoming / ".m.gguf.live.copy"
    program = (
        "import fcntl,sys,time; f=open(sys.argv[1],'wb'); fcntl.flock(f,2); print('locked',flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(live)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"locked\n"
            run(path, src=str(src))
            assert live.exists()
        finally:
            process.send_signal(signal.SIGKILL)


def test_holes_are_refused_unless_the_sha256_proves_them(path, src):
    start = build.padded(build.header(build.LLAMA, [build.tensor("w", [1 << 20], 0, 0)]))
    with open(src, "wb") as file:
        file.write(start)
        file.truncate(len(start) + (4 << 20))
    os.utime(src, (1700000000, 1700000000))
    assert "has holes" in refusals(path, src=str(src))[0]
    wanted = digest(start + bytes(4 << 20))
    assert run(path, src=str(src), sha256=[wanted]).changed
    assert not run(src, sha256=[wanted]).changed


# Sets


def split_web(tmp_path, name="x", filler=0x22):
    folder = tmp_path / f"web{filler}"
    folder.mkdir(exist_ok=True)
    paths = build.split(folder, 3, name, filler)
    return Web(**{path.name[:-5]: path.read_bytes() for path in paths}), [digest(path.read_bytes()) for path in paths]


def test_a_set_is_brought_whole_from_any_part(tmp_path):
    web, digests = split_web(tmp_path)
    path = tmp_path / "models" / "x-00002-of-00003.gguf"
    found = run(path, web, url="https://h/x-00003-of-00003.gguf", sha256=digests)
    assert found.changed
    assert found.model["path"].endswith("x-00001-of-00003.gguf")
    assert [file["sha256"] for file in found.model["files"]] == digests
    assert (found.model["sha256"], found.model["parameters"], found.model["name"]) == (None, 192, "Tiny")
    again = run(path, web, url="https://h/x-00003-of-00003.gguf", sha256=digests)
    assert not again.changed
    assert again.model == found.model
    assert len(web.asked) == 3


def test_a_set_is_copied_whole(tmp_path):
    split_web(tmp_path)
    found = run(tmp_path / "models" / "x-00001-of-00003.gguf", src=str(tmp_path / "web34" / "x-00001-of-00003.gguf"))
    assert found.changed
    assert found.model["parameters"] == 192


def test_no_part_appears_before_all_are_whole_and_none_is_fetched_twice(tmp_path):
    web, digests = split_web(tmp_path)
    third = web.contents.pop("https://h/x-00003-of-00003.gguf")
    options = {"url": "https://h/x-00001-of-00003.gguf", "sha256": digests}
    path = tmp_path / "models" / "x-00001-of-00003.gguf"
    with pytest.raises(OperatorError, match="404"):
        run(path, web, **options)
    assert [name for name in os.listdir(path.parent) if not name.startswith(".")] == []
    web.contents["https://h/x-00003-of-00003.gguf"] = third
    assert run(path, web, **options).changed
    assert len(web.asked) == 4
    assert all(name.startswith(".gguf_model/x") or "/" not in name for name in entries(path.parent))


def test_a_set_without_room_is_refused_before_its_first_byte(tmp_path):
    web, digests = split_web(tmp_path)
    web.size = 1 << 60
    path = tmp_path / "models" / "x-00001-of-00003.gguf"
    with pytest.raises(OperatorError, match="bytes free"):
        run(path, web, url="https://h/x-00001-of-00003.gguf", sha256=digests)
    assert web.asked == []


def test_parts_of_two_models_never_become_one(tmp_path):
    web, dummy = split_web(tmp_path)
    two = build.split(tmp_path, 2, "y")
    web.contents["https://h/x-00003-of-00003.gguf"] = two[1].read_bytes()
    path = tmp_path / "models" / "x-00001-of-00003.gguf"
    with pytest.raises(OperatorError, match="is named as part 3 of 3, and its header"):
        run(path, web, url="https://h/x-00001-of-00003.gguf")
    assert entries(path.parent) == []


def test_a_lost_part_is_brought_alone(tmp_path):
    web, digests = split_web(tmp_path)
    path = tmp_path / "models" / "x-00001-of-00003.gguf"
    options = {"url": "https://h/x-00001-of-00003.gguf", "sha256": digests}
    first = run(path, web, **options)
    os.unlink(tmp_path / "models" / "x-00002-of-00003.gguf")
    web.asked.clear()
    found = run(path, web, **options)
    assert web.asked == ["https://h/x-00002-of-00003.gguf"]
    assert found.model == first.model


# Absent


def test_a_set_is_removed_with_its_records_and_leftovers(tmp_path):
    web, digests = split_web(tmp_path)
    path = tmp_path / "models" / "x-00001-of-00003.gguf"
    run(path, web, url="https://h/x-00001-of-00003.gguf", sha256=digests)
    incoming = path.parent / MODEL_RECORDS / "incoming"
    incoming.mkdir()
    (incoming / ".x-00002-of-00003.gguf.0123456789abcdef.part").write_bytes(b"half")
    (path.parent / "other.gguf").write_bytes(b"stays")
    found = run(path, state="absent")
    assert found.changed
    assert found.model["state"] == "absent"
    assert os.listdir(path.parent) == ["other.gguf"]
    assert not run(path, state="absent").changed


def test_absent_where_nothing_ever_was(tmp_path):
    assert not run(tmp_path / "no" / "folder" / "m.gguf", state="absent").changed
    assert os.listdir(tmp_path) == []


# Check mode


def test_check_mode_previews_a_copy(path, src):
    previewed = describe(str(path), preview(decision_of(path, True, src=str(src), sha256=[digest(CONTENT)])))
    assert not path.parent.exists()
    done = run(path, src=str(src), sha256=[digest(CONTENT)]).model
    assert previewed == done


def test_check_mode_has_every_key_for_what_is_not_known(path):
    previewed = describe(str(path), preview(decision_of(path, True, url="https://h/m.gguf")))
    assert previewed.keys() == run(path, Web(m=CONTENT), url="https://h/m.gguf").model.keys()
    assert (previewed["state"], previewed["size"], previewed["architecture"]) == ("present", None, None)


# Inventory


def test_inventory_of_a_folder(tmp_path, src, monkeypatch):
    folder = tmp_path / "models"
    run(folder / "a.gguf", src=str(src))
    (folder / "cut.gguf").write_bytes(CONTENT[:-100])
    (folder / "page.gguf").write_bytes(b"<html>")
    paths = build.split(folder, 3)
    paths[1].unlink()
    (folder / "notes.txt").write_bytes(b"")
    (folder / "sub.gguf").mkdir()
    monkeypatch.setattr(seen_file, "hash_file", lambda path: pytest.fail("read"))
    found = {os.path.basename(one["path"]): one for one in inventory(str(folder))}
    assert list(found) == ["a.gguf", "big-00001-of-00003.gguf", "cut.gguf", "page.gguf", "sub.gguf"]
    assert found["a.gguf"]["problems"] == []
    assert found["a.gguf"]["sha256"] == digest(CONTENT)
    assert "is not there. It belongs to this model." in found["big-00001-of-00003.gguf"]["problems"][0]
    assert "cut short" in found["cut.gguf"]["problems"][0]
    assert "HTML" in found["page.gguf"]["problems"][0]
    assert "is a folder" in found["sub.gguf"]["problems"][0]


def test_inventory_of_one_file_and_of_none(tmp_path, src):
    (one,) = inventory(str(src))
    assert (one["state"], one["parameters"], one["problems"]) == ("present", 160, [])
    (none,) = inventory(str(tmp_path / "no.gguf"))
    assert (none["state"], none["problems"]) == ("absent", [])
    assert none.keys() == one.keys()


def test_a_copy_of_a_folder_with_its_records_is_not_trusted(tmp_path, src):
    run(tmp_path / "models" / "m.gguf", src=str(src))
    shutil.copytree(tmp_path / "models", tmp_path / "moved")
    (one,) = inventory(str(tmp_path / "moved"))
    assert one["sha256"] is None
