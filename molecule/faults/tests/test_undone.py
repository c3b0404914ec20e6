# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults in the middle of a change: the last release serves again, or the next run repairs it."""

import json
import re
import time

import pytest

ONLY = ("--tags", "llamacpp_instances")
CONTEXT = 131072
ENDLESS = {
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": CONTEXT - 100,
    "ignore_eos": True,
    "stream": True,
}
# A gate that takes seconds, also with the tiny model.
LONG_GATE = {"gate": "completion", "gate_prompts": [{"prompt": "Count.", "pattern": "."}] * 6}
URL = "http://127.0.0.1:4403/v1/chat/completions"


@pytest.fixture(autouse=True)
def as_declared_afterwards(instance, deploy):
    """One more run repairs whatever a test leaves."""
    yield
    done = deploy()
    assert done.failed == 0, done.output
    assert instance.health() == 200
    assert instance.pid()


def test_a_server_on_the_cpu_is_not_accepted(instance, change, lab):
    """The fake GPUs show no process, as they do for a server that computes on the CPU."""
    before = instance.command(instance.pid())
    lab("gpu", "gpu1", "auto", "off")
    try:
        failed = change(gate="full")
    finally:
        lab("gpu", "gpu1", "auto", "rss")

    assert failed.failed == 1, failed.output
    assert "The server runs on the CPU: none of its processes is on GPU 0, 1, 2, 3" in failed.output.replace(
        "\n        ", " "
    )
    assert "Back on the release of" in failed.output
    assert instance.command(instance.pid()) == before
    assert instance.health() == 200


def test_a_stream_without_end_is_cut_and_counted(instance, change, deploy):
    """The tiny model takes a minute for so many tokens."""
    assert deploy(*ONLY, context_size=CONTEXT).failed == 0
    instance.host.check_output(
        "nohup setsid curl -sN -m 300 -H 'Content-Type: application/json' -d %s %s > /tmp/endless 2>&1 & sleep 2",
        json.dumps(ENDLESS),
        URL,
    )

    done = change(drain_timeout=3)

    assert done.failed == 0, done.output
    assert "1 request was still running after" in done.output
    assert instance.health() == 200


def test_the_connection_breaks_in_the_middle(instance, begin, lab, late_start):
    """The module loses its connection to the control node; the next run continues from the state that it finds."""
    pid = instance.pid()
    running = begin(*ONLY, context_size=4096, **late_start(gpu1=5))
    instance.wait(lambda: instance.pids() != [pid], "stop of the old server")
    lab("cut", "gpu1")
    time.sleep(1)
    running.kill()
    lab("join", "gpu1")


@pytest.mark.parametrize("moment", ["files", "stopped", "loading", "proving"])
def test_a_power_cut(instance, begin, lab, late_start, moment):
    """The power fails at a step of a change. The host boots with the old or with the new release, and serves."""
    pid, launch = instance.pid(), instance.record()["launch"]["id"]
    settings = {"loading": late_start(gpu1=5), "proving": LONG_GATE}
    running = begin(*ONLY, context_size=4096, **settings.get(moment, {}))
    at = {
        "files": lambda: instance.record()["launch"]["id"] != launch,
        "stopped": lambda: instance.pids() != [pid],
        "loading": lambda: instance.pids() not in ([pid], []),
        "proving": lambda: instance.pids() not in ([pid], []) and instance.health() == 200,
    }
    instance.wait(at[moment], f"the moment {moment}")
    lab("poweroff", "--pull", "gpu1")
    running.kill()
    lab("poweron", "gpu1")
    instance.wait(lambda: instance.health() == 200, "server after the power cut")


def test_a_server_that_is_frozen(instance):
    pid = instance.pid()

    instance.host.check_output(f"kill -STOP {pid}")

    instance.wait(lambda: len(instance.pids()) == 1 and instance.pids() != [pid], "another server", 150)
    instance.back(pid)


def test_a_recorded_pid_that_belongs_to_another_process(instance, host):
    """Process ids are used again, so one that is alive proves nothing."""
    assert instance.script("stop").rc == 0
    account = {**instance.account(), "runner_pid": 1, "server_pid": 1, "exit": None}
    host.check_output("printf %s > %s", json.dumps(account), f"{instance.site.folder}/running.json")

    assert instance.script("status").rc == 3
    assert instance.script("start").rc == 0
    assert instance.health() == 200
    assert instance.account()["server_pid"] != 1


def test_a_crash_loop_and_then_a_good_deploy(instance, host):
    """Without its model the server dies at each start; a deploy repairs it."""
    path = instance.record()["spec"]["model"]
    host.check_output("mv %s /data/gone.gguf", path)
    starts = instance.starts()
    host.check_output(f"kill -9 {instance.pid()}")
    instance.wait(lambda: instance.starts() >= starts + 2, "second try", 90)
    assert instance.health() != 200


def test_a_model_that_is_damaged_in_its_place(instance, host, deploy):
    """Name and size stay, some bytes change: the model is fetched again, and the server restarts with it."""
    path, pid = instance.record()["spec"]["model"], instance.pid()
    right = host.file(path).sha256sum
    host.check_output("dd if=/dev/urandom of=%s bs=64k seek=40 count=4 conv=notrunc status=none", path)

    done = deploy()

    assert done.failed == 0, done.output
    assert "Fetch the models" in done.tasks
    assert host.file(path).sha256sum == right
    assert f"replaced since it was started: {path}" in done.output.replace("\n        ", " ")
    assert instance.pid() != pid


def test_a_full_disk(instance, host, change):
    """The instance's folder is on a full disk: no file is written in part, and the server continues."""
    folder = instance.site.folder
    assert instance.script("stop").rc == 0
    host.check_output(
        "cp -a %s /tmp/kept && mount -t tmpfs -o size=8m,mode=750 none %s && cp -a /tmp/kept/. %s && rm -r /tmp/kept"
        " && chown operator:operator %s",
        *[folder] * 4,
    )
    try:
        assert instance.script("start").rc == 0
        host.run("dd if=/dev/zero of=%s/ballast bs=64k status=none; sync; cat /dev/zero > %s/crumbs", folder, folder)
        pid, record = instance.pid(), instance.record()

        refused = change()

        assert refused.failed == 1, refused.output
        assert "No space left on device" in refused.output
        assert (instance.pid(), instance.record()) == (pid, record)
        assert instance.health() == 200
    finally:
        host.run("rm -f %s/ballast %s/crumbs", folder, folder)
        instance.script("stop")
        host.check_output("umount %s", folder)


def test_the_evidence_of_a_failure_has_no_secret(instance, host, change):
    host.check_output("printf 'sk-very-secret-1\\n' > /home/operator/keys && chown operator: /home/operator/keys")

    failed = change(api_key_file="/home/operator/keys", args=["--jinja", "--mmproj /models/nowhere.gguf"])

    assert failed.failed == 1, failed.output
    (folder,) = set(re.findall(r"The evidence is in (\S+)\.", failed.output))
    assert "nowhere.gguf" in host.check_output("cat %s", f"{folder}/argv.json")
    assert host.run("grep -r sk-very-secret-1 %s", folder).rc == 1
    assert "sk-very-secret-1" not in failed.output
