# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A download that is killed at random moments, a power cut during a download, and three downloads at once."""

import hashlib
import random
import signal
import time

import pytest

MIB = 1 << 20
CHUNK = 4 * MIB  # for a file as large as `big`
CONNECTIONS = 2


@pytest.fixture
def options(servers, big):
    return {
        "repo": big.repo,
        "file": big.file,
        "endpoint": servers.hub,
        "connections": CONNECTIONS,
        "max_rate": "100M",
    }


def test_a_download_killed_at_random_moments(direct, servers, big, options, home, arrived, long, record_property):
    """In the end the file is right and nothing is left over. A kill costs at most the chunks that were in transfer."""
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    print(f"seed {seed}")
    moments, kills = random.Random(seed), 0
    done = {}
    for _attempt in range(10 if long else 3):
        running = direct.start("gguf_model", path=f"{home}/big.gguf", **options)
        time.sleep(moments.uniform(0.4, 2.0))
        if not running.signal(signal.SIGKILL):
            done = running.result()
            break
        kills += 1
        running.result()
    else:
        done = direct.run("gguf_model", path=f"{home}/big.gguf", **options)

    assert kills, f"it was done before the first kill, seed {seed}"
    assert not done.get("failed"), done
    arrived(home, big)
    sent = sum(one.sent for one in servers.requests())
    again = sent - big.size
    print(f"{kills} kills, {again / MIB:.1f} MiB fetched again")
    assert 0 <= again <= kills * CONNECTIONS * CHUNK, f"{again} bytes were fetched again in {kills} kills, seed {seed}"
    assert direct.run("gguf_model", path=f"{home}/big.gguf", **options)["changed"] is False


def test_a_killed_download_of_an_image_is_resumed(direct, servers, login, home, claims_of):
    options = {"path": f"{home}/i.sif", "src": f"oras://{servers.registry}/lab/llamacpp:stable", "no_https": True}
    options |= {"connections": 1, "max_rate": "20M"}
    running = direct.start("sif_image", **options)
    journal = f"find {home} -name '*.journal.*' -exec cat {{}} +"
    wait(lambda: claims_of(login.run(journal).stdout_bytes))
    assert running.signal(signal.SIGKILL)
    running.result()
    claimed = sum(claims_of(login.run(journal).stdout_bytes).values())

    done = direct.run("sif_image", **options)

    assert done["changed"], done
    assert done["transfer"]["bytes_resumed"] == claimed > 0
    assert login.file(f"{home}/i.sif").sha256sum == done["image"]["sha256"]
    left = login.check_output(f"find {home} -name '*.part*' -o -name incoming")
    assert left == ""


def wait(met, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)


def test_the_power_is_cut(direct, host, disks, servers, big, options, claims_of, arrived):
    """Only the content of the block device is left, so the test continues with a copy of it, taken without a sync."""
    image = disks.make("cut.img", "500M", "mkfs.ext4", "-q")
    with disks.mounted(image) as point:
        running = direct.start("gguf_model", path=f"{point}/models/big.gguf", **options)
        journal = f"find {point}/models -name '*.journal.*' -exec cat {{}} +"
        wait(lambda: sum(claims_of(host.run(journal).stdout_bytes).values()) >= 20 * CHUNK)
        # The writer is stopped, so the copy has the state of one moment; unsynced data is not on the device.
        assert running.signal(signal.SIGSTOP)
        device = host.check_output(f"losetup -j {image} -O NAME -n").rpartition("/")[2]
        writes = f"cut -c1- /sys/block/{device}/stat"
        for _attempt in range(20):
            before = host.check_output(writes)
            host.check_output(f"cp --sparse=always {image} /srv/left.img")
            if host.check_output(writes) == before:
                break
        else:
            pytest.fail("every copy met a write to the device")
        running.signal(signal.SIGKILL)
        running.result()
    with disks.mounted("/srv/left.img") as point:
        claims = claims_of(host.run(f"find {point}/models -name '*.journal.*' -exec cat {{}} +").stdout_bytes)
        assert claims
        part = host.check_output(f"find {point}/models -name '*.part'")
        truth = big.files[0].read_bytes()
        for chunk, size in claims.items():
            held = host.check_output(f"tail -c +{chunk * CHUNK + 1} {part} | head -c {size} | sha256sum").split()[0]
            assert held == hashlib.sha256(truth[chunk * CHUNK :][:size]).hexdigest(), (
                f"chunk {chunk} is not on the device"
            )
        assert host.run(f"test -e {point}/models/big.gguf").rc != 0

        done = direct.run("gguf_model", path=f"{point}/models/big.gguf", **{**options, "max_rate": "1G"})

        assert done["changed"], done
        kept = sum(claims.values())
        assert done["transfer"]["bytes_resumed"] >= kept
        assert done["transfer"]["bytes_fetched"] <= big.size - kept + CHUNK
        arrived(f"{point}/models", big)
    host.check_output("rm -f /srv/*.img")


def test_three_downloads_of_one_file_at_once(direct, servers, big, options, home, arrived):
    """There is no lock: the first one to end delivers the file, and the others accept it."""
    running = [direct.start("gguf_model", path=f"{home}/big.gguf", **{**options, "max_rate": "1G"}) for _one in "123"]

    answers = [one.result() for one in running]

    assert [one for one in answers if one.get("failed")] == []
    arrived(home, big)
    assert {one["model"]["sha256"] for one in answers} == set(big.digests)
    again = direct.run("gguf_model", path=f"{home}/big.gguf", **options)
    assert again["changed"] is False


def test_a_killed_task_fails_with_a_message_and_the_next_one_resumes(servers, big, options, home, host, arrived, tasks):
    """Here Ansible runs the module, which is killed on the host."""
    path = f"{home}/big.gguf"
    # A journal's name ends with the pid of its writer.
    pid = f"grep -ls ' have ' {home}/.gguf_model/incoming/.*.journal.* | sed 's/.*journal[.][^.]*[.]//; s/[.].*//'"
    kill = f'until pid=$({pid}) && test -n "$pid"; do sleep 0.05; done; kill -9 $pid'
    host.check_output("systemd-run -q bash -c %s", kill)

    broken, done = tasks([("gguf_model", {"path": path, **options}, False)] * 2)

    assert broken.get("failed"), broken
    assert "Traceback" not in broken["msg"], broken
    assert done["changed"], done
    assert done["transfer"]["bytes_resumed"] > 0
    arrived(home, big)
