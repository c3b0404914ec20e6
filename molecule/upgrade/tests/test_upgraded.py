# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the deploy of this version: the files are its own, and the server still runs."""


def test_the_server_was_not_restarted(instance):
    assert instance.starts() == 1
    assert instance.account()["server_pid"] == instance.pid()
    assert instance.health() == 200


def test_the_files_are_those_of_this_version(instance, site, host, module):
    assert "files" in instance.record()["launch"]
    (info,) = module("llamacpp_instance_info", home=site.home)["instances"]
    assert (info["state"], info["drift"]) == ("running", [])


def test_its_script_and_its_manager_work(instance, host):
    assert instance.script("status").rc == 0
    pid = instance.pid()
    host.check_output(f"kill -9 {pid}")
    instance.back(pid)


def test_the_next_start_is_this_versions(instance, deploy):
    """It has the GPUs by their UUIDs, and the stamps of its files, which show a replaced file."""
    done = deploy(context_size=4096)

    assert done.failed == 0, done.output
    assert instance.record()["launch"]["gpus"] == [f"GPU-{n}f5a1c00-fa4e-4e56-8d4c-00000000000{n}" for n in range(4)]
    assert set(instance.account()["files"]) == set(instance.record()["launch"]["files"])


def test_removal_leaves_nothing(instance, site, host, module):
    gone = module("llamacpp_instance", name="4403-glm-4.7-flash-q4", state="absent", home=site.home)

    assert gone["changed"], gone
    assert not host.file(site.folder).exists
    assert instance.leftovers() == ""
    assert host.run("crontab -u operator -l").stdout.strip() == ""
