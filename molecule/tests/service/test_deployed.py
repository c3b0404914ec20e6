# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployed service, seen from outside: the process, its files, its answers, and run.sh.

The GPUs are fakes and the server computes on the CPU, so this tests the management of GPUs and not CUDA.
"""

import json

import pytest

NAME = "4403-glm-4.7-flash-q4"
# The order of the operator's documentation. The lab's inventory has another model, context and number of threads.
ARGV = [
    *("/opt/llama.cpp/build/bin/llama-server", "-m", "/models/{model}"),
    *("-ngl", "99", "-c", "8192", "--port", "4403", "--host", "0.0.0.0", "-t", "1"),
    *("--jinja", "--fit", "on", "--temp", "1.0", "--top-p", "0.95", "--min-p", "0.01", "--repeat-penalty", "1.0"),
]
QUESTION = "写一个Python函数来计算斐波那契数列"


@pytest.fixture
def argv(site):
    return [word.format(model=site.model) for word in ARGV]


def curl(instance, path, *words):
    return json.loads(instance.login.check_output(f"curl -sS http://localhost:4403{path} " + " ".join(words)))


def test_the_arguments_are_the_documented_ones(instance, argv):
    assert instance.command(instance.pid()) == argv


def test_the_server_is_below_the_runner_below_the_manager(site, instance):
    container, runner, manager, *dummy = instance.parents()

    assert "Apptainer" in container
    assert f"{site.folder}/runner.py" in runner
    if site.manager == "supervisor":
        assert "/venv/bin/supervisord " in manager
    else:
        assert manager == "/usr/lib/systemd/systemd" + (" --user" if site.manager == "systemd_user" else "")


def test_the_server_runs_as_the_right_user_and_listens(site, instance, host):
    assert host.process.get(pid=instance.pid()).user == site.user
    assert host.socket("tcp://0.0.0.0:4403").is_listening


def test_it_is_given_its_gpus(instance, host):
    """The variable that CUDA would read; the UUIDs are those of the fake GPUs."""
    environment = host.check_output(f"tr '\\0' '\\n' < /proc/{instance.pid()}/environ").splitlines()

    uuids = instance.record()["launch"]["gpus"]
    assert len(uuids) == 4
    assert f"CUDA_VISIBLE_DEVICES={','.join(uuids)}" in environment
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in environment
    assert not [line for line in environment if line.startswith("LLAMA_")]


def test_files_and_modes(site, instance, host):
    owner = "root" if site.manager == "systemd" else site.user
    modes = {"": 0o750, "/run.sh": 0o755, "/runner.py": 0o644, "/instance.json": 0o640}
    for path, mode in modes.items():
        file = host.file(site.folder + path)
        assert (file.mode, file.user, file.group) == (mode, owner, site.user), path
    assert host.run(f"ls {site.home}/shared/llamacpp-cuda-complete-*.sif").rc == 0
    assert host.file(f"/data/models/{site.model}").sha256sum == instance.record()["launch"]["model_sha256"]


def test_the_release_is_recorded(instance):
    record = instance.record()

    assert record["release"]["launch"]["id"] == record["launch"]["id"] == instance.account()["launch"]
    assert record["release"]["completion"]


def test_health(instance):
    assert curl(instance, "/health") == {"status": "ok"}


def test_models(site, instance):
    assert site.model in json.dumps(curl(instance, "/v1/models"))


def test_the_documented_chat_request(instance):
    asked = {"model": "glm-4.7-flash-q8", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}

    answer = curl(instance, "/v1/chat/completions", "-H 'Content-Type: application/json' -d", f"'{json.dumps(asked)}'")

    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["usage"]["completion_tokens"] > 0


def test_info_agrees_with_the_host(site, instance, module, argv):
    (info,) = module("llamacpp_instance_info", name=NAME)["instances"]

    assert info["state"] == "running"
    assert info["manager"] == site.manager
    assert info["pid"] == instance.pid()
    assert info["enabled"] is True
    assert info["drift"] == []
    assert info["argv"][-len(argv) :] == argv
    assert [card["index"] for card in info["gpu_memory"]] == [0, 1, 2, 3]


def test_a_second_deploy_changes_nothing(instance, deploy):
    pid, before = instance.pid(), instance.snapshot()

    again = deploy()

    assert (again.changed, again.failed) == (0, 0), again.output
    assert instance.pid() == pid
    assert instance.snapshot() == before


def test_run_sh(site, instance, host):
    pid = instance.pid()
    status = instance.script("status")
    assert status.rc == 0
    for words in (f"pid        {pid} ({site.manager})", "health     ok", "listens    0.0.0.0:4403", "uptime"):
        assert words in status.stdout
    assert status.stdout.count("MiB of 143771 MiB") == 4

    stopped = instance.script("stop")
    assert stopped.rc == 0, stopped
    left = [line for line in instance.leftovers().splitlines() if "supervisord" not in line]
    assert left == []
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
    assert instance.script("status").rc == 3
    assert instance.script("stop").rc == 0

    started = instance.script("start")
    assert started.rc == 0, started
    second = instance.pid()
    assert instance.script("start").rc == 0
    assert instance.pid() == second

    restarted = instance.script("restart")
    assert restarted.rc == 0, restarted
    assert instance.pid() not in (pid, second)
    assert instance.script("status").rc == 0

    assert instance.script("bogus").rc == 2


def test_run_sh_logs_follows(site, instance):
    followed = instance.login.run("timeout 2 %s logs", f"{site.folder}/run.sh")

    assert followed.rc == 124
    assert "llamacpp runner: ready after" in followed.stdout
