# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""This version has come: the files are its own, and the server is the one from before."""


def test_the_server_was_not_restarted(instance):
    assert instance.starts() == 1
    assert instance.account()["server_pid"] == instance.pid()
    assert instance.health() == 200


def test_everything_is_as_this_version_writes_it(instance, site, host, module):
    assert "files" in instance.record()["launch"]
    (told,) = module("llamacpp_instance_info", home=site.home)["instances"]
    assert (told["state"], told["drift"]) == ("running", [])


def test_its_script_and_its_manager_serve_on(instance, host):
    assert instance.script("status").rc == 0
    pid = instance.pid()
    host.check_output(f"kill -9 {pid}")
    instance.back(pid)


def test_the_next_start_is_this_versions(instance, deploy):
    """With GPUs by their UUIDs, and the files by which a replaced one is seen."""
    done = deploy(context_size=4096)

    assert done.failed == 0, done.output
    assert instance.record()["launch"]["gpus"] == [f"GPU-{n}f5a1c00-fa4e-4e56-8d4c-00000000000{n}" for n in range(4)]
    assert set(instance.account()["files"]) == set(instance.record()["launch"]["files"])


def test_it_goes_without_a_trace(instance, site, host, module):
    gone = module("llamacpp_instance", name="4403-glm-4.7-flash-q4", state="absent", home=site.home)

    assert gone["changed"], gone
    assert not host.file(site.folder).exists
    assert instance.leftovers() == ""
    assert host.run("crontab -u operator -l").stdout.strip() == ""
