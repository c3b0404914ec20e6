# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode of this version on a host of an earlier one: it shows the changes and makes none."""

import json


def test_the_server_of_the_earlier_version_runs(instance, site):
    assert instance.health() == 200
    assert instance.starts() == 1


def test_the_preview_has_no_restart(instance, deploy):
    pid, before = instance.pid(), instance.snapshot()

    preview = deploy("--check", "--diff")

    assert preview.failed == 0, preview.output
    assert "Restart llama-server" not in preview.output
    assert (instance.pid(), instance.snapshot()) == (pid, before)


def test_the_state_of_a_newer_version_is_refused(instance, site, host, deploy, module):
    path = f"{site.folder}/instance.json"
    pid, old = instance.pid(), host.check_output("cat %s", path)
    host.check_output("printf '%%s\\n' %s > %s", json.dumps({**json.loads(old), "format": 99}), path)
    files = f"find {site.folder} {site.home}/supervisor.d -type f ! -name '*.log' -printf '%p %T@ %s\\n' | sort"
    before = host.check_output(files)
    try:
        refused = deploy()
        info = module("llamacpp_instance_info", home=site.home)
        assert host.check_output(files) == before
    finally:
        host.check_output("printf '%%s\\n' %s > %s", old, path)

    assert refused.failed == 1, refused.output
    assert "has format 99, this version of gpufleet.llamacpp knows up to 1: a newer one wrote it." in refused.output
    assert "Traceback" not in refused.output
    assert "format 99" in json.dumps(info)
    assert (instance.pid(), instance.health()) == (pid, 200)
