# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After state absent: nothing of the instance is left; image and model stay."""

NAME = "4403-glm-4.7-flash-q4"


def test_no_process_and_no_file_is_left(site, instance, host):
    assert instance.leftovers() == ""
    assert not host.file(site.folder).exists
    assert host.check_output("find / -xdev -name '*4403*' -not -path '/proc/*' -not -path '/var/log/*' | head") == ""
    assert not host.socket("tcp://0.0.0.0:4403").is_listening


def test_no_unit_and_no_crontab_line_is_left(host):
    assert host.check_output("crontab -u operator -l") == "0 3 * * * true # the operator's own"
    assert host.run("crontab -u root -l").stdout == ""
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
    assert "llamacpp" not in host.check_output("systemctl list-unit-files --plain --no-legend")


def test_image_and_model_stay(site, host):
    assert host.run(f"ls {site.home}/shared/llamacpp-cuda-complete-*.sif").rc == 0
    assert host.file(f"/data/models/{site.model}").is_file


def test_removing_it_again_changes_nothing(module):
    again = module("llamacpp_instance", name=NAME, state="absent")

    assert again["changed"] is False
    assert again["instance"] == {"name": NAME, "state": "absent"}
