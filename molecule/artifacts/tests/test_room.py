# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full disks: without bytes at any stage, without inodes, with a quota. Each gives a message and no partial file."""

import pytest

MIB = 1 << 20
SIF = "llamacpp-cuda-complete.sif"


@pytest.fixture
def options(servers, small):
    return {"repo": small.repo, "file": small.file, "endpoint": servers.hub}


def leave_free(host, point, size):
    """Fill the disk until about this many bytes are free. A file system may leave fewer."""
    host.check_output(
        f"cd {point}; rm -f ballast; sync -f .; n=$(($(stat -f -c '%a * %S' .) - {size}));"
        " test $n -le 0 || fallocate -l $n ballast 2>/dev/null || head -c $n /dev/zero > ballast 2>/dev/null; true"
    )


def assert_no_model(host, folder):
    assert host.check_output(f"find {folder} -name '*.gguf' ! -path '*/incoming/*'") == ""


def test_a_disk_that_is_full_at_any_stage(direct, host, disks, servers, small, options, sentence, arrived):
    """Room for nothing, for a part, for the second one, a journal, a record, the last block, and for all."""
    outcomes = []
    with disks.mounted(disks.make("room.img", "24M", "mkfs.ext4", "-q", "-m", "0")) as point:
        path = f"{point}/models/{small.first}"
        for size in (
            0,
            4096,
            16384,
            MIB,
            2 * MIB,
            small.size - 4096,
            small.size,
            *(small.size + 16384 * n for n in (1, 3, 9)),
        ):
            leave_free(host, point, size)
            servers.requests()
            done = direct.run("gguf_model", path=path, **options)
            outcomes.append(bool(done.get("failed")))
            if done.get("failed"):
                assert f"{point}/models" in sentence(done)
                assert_no_model(host, f"{point}/models")
                if size < small.size - MIB // 2:
                    assert servers.requests() == [], "it fetched, though the room was known to be too small"
            else:
                arrived(f"{point}/models", small)
                gone = direct.run("gguf_model", path=path, state="absent")
                assert not gone.get("failed"), gone
        assert outcomes[0] and not outcomes[-1], outcomes
        leave_free(host, point, 10 * MIB)
        assert direct.run("gguf_model", path=path, **options)["changed"]
        arrived(f"{point}/models", small)


def test_a_disk_that_fills_up_during_the_download(direct, host, disks, servers, whole, sentence, arrived):
    """Another process takes the free room during the download, which has reserved its own at the start."""
    with disks.mounted(disks.make("fills.img", "160M", "mkfs.ext4", "-q", "-m", "0")) as point:
        options = {"repo": whole.repo, "file": whole.file, "endpoint": servers.hub, "max_rate": "50M"}
        running = direct.start("gguf_model", path=f"{point}/models/m.gguf", **options)
        host.check_output(f"until find {point}/models -name '*.part' | grep -q .; do sleep 0.05; done")
        host.run(
            f"dd if=/dev/zero of={point}/ballast bs=1M 2>/dev/null; dd if=/dev/zero of={point}/more bs=512 2>/dev/null"
        )

        done = running.result()

        if done.get("failed"):
            sentence(done)
            assert_no_model(host, f"{point}/models")
        host.check_output(f"rm {point}/ballast {point}/more")
        again = direct.run("gguf_model", path=f"{point}/models/m.gguf", **options)
        assert not again.get("failed"), again
        arrived(f"{point}/models", whole)


def test_an_image_without_room(direct, host, disks, servers, login, sentence):
    """Room for the registry's file, and for the conversion by Apptainer."""
    with disks.mounted(disks.make("image.img", "64M", "mkfs.ext4", "-q", "-m", "0")) as point:
        path = f"{point}/models/i.sif"
        oras = {"path": path, "src": f"oras://{servers.registry}/lab/llamacpp:stable", "no_https": True}
        docker = {"path": path, "src": f"docker://{servers.registry}/lab/container:1", "no_https": True}
        for size in (0, 16384, 20 * MIB):
            leave_free(host, point, size)
            for options in (oras, docker) if size < MIB else (oras,):
                sentence(direct.run("sif_image", **options))
                assert host.check_output(f"find {point}/models -name '*.sif' ! -path '*/incoming/*'") == ""
        host.check_output(f"rm {point}/ballast")
        done = direct.run("sif_image", **oras)
        assert done["changed"], done
        assert login.file(path).sha256sum == done["image"]["sha256"]


def test_a_disk_without_inodes_at_any_stage(direct, host, disks, servers, small, options, sentence, arrived):
    outcomes = []
    with disks.mounted(disks.make("inodes.img", "24M", "mkfs.ext4", "-q", "-m", "0", "-N", "64")) as point:
        path = f"{point}/models/{small.first}"
        for free in (0, 1, 2, 3, 5, 8, 14):
            host.check_output(
                f"rm -rf {point}/ballast; mkdir {point}/ballast; cd {point}/ballast;"
                f" n=$(($(stat -f -c %d .) - {free})); test $n -le 0 || seq $n | xargs touch"
            )
            done = direct.run("gguf_model", path=path, **options)
            outcomes.append(bool(done.get("failed")))
            if done.get("failed"):
                sentence(done)
                assert_no_model(host, f"{point}/models")
            else:
                arrived(f"{point}/models", small)
                assert direct.run("gguf_model", path=path, state="absent")["changed"]
        assert outcomes[0] and not outcomes[-1], outcomes


# linux/btrfs.h: BTRFS_IOC_QUOTA_CTL with BTRFS_QUOTA_CTL_ENABLE, and BTRFS_IOC_QGROUP_LIMIT with a limit of what the
# top volume, number 5, refers to.
LIMIT = """
import fcntl, os, struct, sys
top = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2] == "on":
    fcntl.ioctl(top, 0xC0109428, struct.pack("QQ", 1, 0))
else:
    fcntl.ioctl(top, 0x8030942B, struct.pack("6Q", 5, 1, int(sys.argv[2]), 0, 0, 0))
"""


def test_a_quota_that_is_used_up(direct, host, disks, small, options, sentence, arrived, program):
    """The quota is that of btrfs, because few small kernels have the user quotas of ext4."""
    if host.run("grep -qw btrfs /proc/filesystems").rc != 0:
        pytest.skip("the kernel has no btrfs, whose quota this is about")
    with disks.mounted(disks.make("quota.img", "256M", *program("sbin/mkfs.btrfs"), "-q")) as point:
        host.check_output("python3 -c %s %s on", LIMIT, point)
        path = f"{point}/models/{small.first}"
        for limit in (MIB, 2 * MIB, small.size - MIB // 2):
            host.check_output("python3 -c %s %s %s", LIMIT, point, str(limit))
            message = sentence(direct.run("gguf_model", path=path, **options))
            assert "quota" in message.lower(), message
            assert_no_model(host, f"{point}/models")
        host.check_output("python3 -c %s %s %s", LIMIT, point, str(100 * MIB))
        done = direct.run("gguf_model", path=path, **options)
        assert not done.get("failed"), done
        arrived(f"{point}/models", small)
