# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrong byte in a part, a journal, a record, the model, a mirror or the CDN: a right file, or a clear message."""

import json
import signal
import time

import pytest

MIB = 1 << 20
# Changes one byte of a file. Arguments: path, offset.
FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte[0] ^ 1]))
"""


@pytest.fixture
def options(servers, whole):
    return {"repo": whole.repo, "file": whole.file, "endpoint": servers.hub}


@pytest.fixture
def interrupted(direct, login, home, options, claims_of):
    """The part and the journal of a download that was killed when some of the file had arrived."""
    running = direct.start("gguf_model", path=f"{home}/m.gguf", connections=1, max_rate="40M", **options)
    journal = f"find {home} -name '*.journal.*'"
    deadline = time.monotonic() + 60
    while sum(claims_of(login.run(f"{journal} -exec cat {{}} +").stdout_bytes).values()) < 18 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert running.signal(signal.SIGKILL)
    running.result()
    return {
        "part": login.check_output(f"find {home} -name '*.part'"),
        "journal": login.check_output(journal),
    }


@pytest.mark.parametrize(
    ("what", "offset"),
    [("part", 5), ("part", 17 * MIB), ("journal", 3), ("journal", 60), ("journal", -3)],
    ids=["part, first chunk", "part, second chunk", "journal, checksum", "journal, header", "journal, last claim"],
)
def test_a_wrong_byte_in_the_files_of_a_killed_download(
    direct, login, home, options, whole, arrived, interrupted, what, offset
):
    path = interrupted[what]
    at = offset if offset >= 0 else int(login.check_output(f"stat -c %s {path}")) + offset
    login.check_output("python3 -c %s %s %s", FLIP, path, str(at))

    done = direct.run("gguf_model", path=f"{home}/m.gguf", **options)

    assert done.get("changed"), done
    arrived(home, whole)


def test_wrong_bytes_in_the_record_and_in_the_model(direct, login, home, options, whole, arrived, long):
    path = f"{home}/m.gguf"
    assert direct.run("gguf_model", path=path, **options)["changed"]
    record = login.check_output(f"find {home}/.gguf_model -type f")

    for tenth in range(0, 9, 1 if long else 4):
        length = int(login.check_output(f"stat -c %s {record}"))
        login.check_output("python3 -c %s %s %s", FLIP, record, str(length * tenth // 10))
        done = direct.run("gguf_model", path=path, **options)
        assert not done.get("failed"), done
        assert done["model"]["sha256"] == whole.digests[0]
    arrived(home, whole)

    # A wrong byte from the disk changes no time, so only verify: always can find it.
    login.check_output(f"touch -r {path} {home}/t && python3 -c %s {path} 50000000", FLIP)
    login.check_output(f"touch -r {home}/t {path} && rm {home}/t")
    done = direct.run("gguf_model", path=path, verify="always", **options)
    assert done.get("changed"), done
    arrived(home, whole)


@pytest.fixture
def damaged(servers, whole):
    """A copy of the model with one wrong byte, on the plain web server."""
    content = bytearray(whole.files[0].read_bytes())
    content[40 * MIB] ^= 1
    path = servers.folder / "files" / "damaged.gguf"
    path.write_bytes(content)
    yield path
    path.unlink()


def test_a_mirror_with_a_wrong_byte(direct, servers, home, options, whole, arrived, damaged):
    done = direct.run(
        "gguf_model", path=f"{home}/m.gguf", mirrors=[f"{servers.files}/{damaged.name}"], connections=4, **options
    )

    assert done.get("changed"), done
    arrived(home, whole)


def test_a_cdn_with_a_wrong_byte(direct, servers, host, home, options, whole, arrived, damaged, sentence):
    """No right file is available: the message has both digests, and no file is kept. Then the CDN is repaired."""
    stored = servers.folder / "store" / whole.digests[0][::-1]
    right = stored.readlink()
    stored.unlink()
    stored.symlink_to(damaged)
    try:
        said = sentence(direct.run("gguf_model", path=f"{home}/m.gguf", **options))
    finally:
        stored.unlink()
        stored.symlink_to(right)

    assert whole.digests[0] in said
    assert host.check_output(f"find {home} -type f") == ""
    assert direct.run("gguf_model", path=f"{home}/m.gguf", **options)["changed"]
    arrived(home, whole)


def test_an_html_page_instead_of_a_model(direct, servers, host, home, sentence):
    page = servers.folder / "files" / "page.gguf"
    page.write_text("<html>Please log in</html>" * 100)

    said = sentence(direct.run("gguf_model", path=f"{home}/m.gguf", url=f"{servers.files}/page.gguf"))

    page.unlink()
    assert "GGUF" in said
    assert host.check_output(f"find {home} -type f") == ""


def test_a_record_of_an_image_with_a_wrong_byte(direct, servers, login, home):
    options = {"path": f"{home}/i.sif", "src": f"oras://{servers.registry}/lab/llamacpp:stable", "no_https": True}
    first = direct.run("sif_image", **options)
    assert first["changed"], first
    record = login.check_output(f"find {home} -mindepth 2 -type f -name '*.json'")

    for at in (1, 40, 90):
        login.check_output("python3 -c %s %s %s", FLIP, record, str(at))
        done = direct.run("sif_image", **options)
        assert not done.get("failed"), done
        assert done["image"]["sha256"] == login.file(f"{home}/i.sif").sha256sum == first["image"]["sha256"]
    assert json.loads(login.check_output("cat %s", record))
