# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Four services on one host, and every command for one of them or for all. A tiny model stands in for the large ones,
under their names and in as many parts; the GPUs are fakes.
"""

import json
import re

import pytest

HOME = "/home/operator/llamacpp"
SERVICES = {
    4401: ("4401-glm-4.7-q2", "/models/GLM-4.7-GGUF/UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL-00001-of-00003.gguf"),
    4402: ("4402-glm-4.7-flash-q4", "/models/SmolLM2-tiny.gguf"),
    4403: ("4403-glm-4.7-flash-q4", "/models/SmolLM2-tiny.gguf"),
    5001: ("5001-deepseek-v2.5-gguf", "/models/DeepSeek-V2.5-GGUF/Q6_K/DeepSeek-V2.5-Q6_K-00001-of-00005.gguf"),
}
# GPU 2 of the fakes, with compute mode 3, Exclusive_Process.
EXCLUSIVE = "gpu 2 GPU-2f5a1c00-fa4e-4e56-8d4c-000000000002 00000000:9C:00.0 143771 625 0 0 0 1 3 0 NVIDIA H200 NVL"
SAMPLING = "--temp 1.0 --top-p 0.95"


@pytest.fixture
def pids(host):
    """The pids of the servers by their port."""

    def look():
        found = {}
        for line in host.check_output("pgrep -ax llama-server || true").splitlines():
            pid, command = line.split(None, 1)
            found[int(re.search(r"--port (\d+)", command)[1])] = int(pid)
        return found

    return look


def health(host, port):
    return host.run(f"curl -s -o /dev/null -m 5 -w '%{{http_code}}' http://127.0.0.1:{port}/health").stdout


def everything(host):
    found = host.run(
        f"find {HOME} /data/models -xdev ! -name '*.log' ! -name '*.pyc' ! -name __pycache__"
        " -printf '%p %y %m %u %s %T@ %i\\n' | sort"
    )
    return found.stdout


def test_four_servers_with_the_documented_arguments(host, pids):
    assert sorted(pids()) == list(SERVICES)
    for port, pid in pids().items():
        command = host.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline")
        assert f"-m {SERVICES[port][1]} " in command
        assert SAMPLING in command and f"--port {port} " in command and "--host 0.0.0.0" in command
        assert ("--jinja" in command) == (port < 5000), command
        assert ("--min-p 0.01" in command) == (port in (4402, 4403)), command
        assert health(host, port) == "200"


def test_each_answers(host):
    question = json.dumps({"messages": [{"role": "user", "content": "The capital of France?"}], "max_tokens": 8})
    for port in SERVICES:
        answer = host.check_output(
            "curl -sm 60 -H 'Content-Type: application/json' -d %s %s",
            question,
            f"http://127.0.0.1:{port}/v1/chat/completions",
        )
        assert json.loads(answer)["choices"][0]["message"]["content"], answer


def test_all_parts_are_there_and_a_shared_model_once(host):
    names = host.check_output("find /data/models -name '*.gguf' | sort").splitlines()
    assert len(names) == 3 + 5 + 1, names


def test_status_is_a_table_and_changes_nothing(host, run_playbook, pids, tmp_path):
    before, running = everything(host), pids()
    shown = run_playbook("status", "-e", f"output={tmp_path}/status.json")
    assert (shown.code, shown.changed) == (0, 0)
    lines = shown.output[shown.output.index("HOST  INSTANCE") :].split("\nok: ")[0].splitlines()
    assert max(map(len, lines)) <= 80, "\n".join(lines)
    for name, _model in SERVICES.values():
        assert any(line.startswith(f"gpu1  {name[:8]}") and "running" in line for line in lines), "\n".join(lines)
    written = json.loads((tmp_path / "status.json").read_text())
    assert [one["port"] for one in written["gpu1"]["instances"]] == list(SERVICES)
    assert everything(host) == before and pids() == running


def test_logs_have_host_and_port_in_front(host, run_playbook, tmp_path):
    before = everything(host)
    shown = run_playbook("logs", "-e", "lines=3", "-e", f"output={tmp_path}/logs")
    assert (shown.code, shown.changed) == (0, 0)
    for port, (name, _model) in SERVICES.items():
        assert shown.output.count(f"\ngpu1 {port} | ") == 3
        assert len((tmp_path / "logs" / f"gpu1-{name}.log").read_text().splitlines()) == 3
    assert everything(host) == before


@pytest.mark.parametrize("command", ["start", "stop", "restart", "status", "logs", "remove", "update_image"])
def test_an_unknown_instance_is_an_error(run_playbook, pids, command):
    before = pids()
    refused = run_playbook(command, "-e", "instance=4409")
    assert refused.code != 0
    assert "No host of this play has an instance with the name or port 4409" in refused.output.replace("\n   ", "")
    assert pids() == before


def test_stop_and_start_one_by_its_port(host, run_playbook, pids):
    before = pids()
    stopped = run_playbook("stop", "-e", "instance=4402")
    assert (stopped.code, stopped.changed) == (0, 1), stopped.output
    assert pids() == {port: pid for port, pid in before.items() if port != 4402}
    again = run_playbook("stop", "-e", "instance=4402")
    assert (again.code, again.changed) == (0, 0), again.output

    started = run_playbook("start", "-e", "instance=4402-glm-4.7-flash-q4")
    assert (started.code, started.changed) == (0, 1), started.output
    assert health(host, 4402) == "200"
    again = run_playbook("start")
    assert (again.code, again.changed) == (0, 0), again.output


def test_restart_one_by_its_name(run_playbook, pids):
    before = pids()
    done = run_playbook("restart", "-e", f"instance={SERVICES[5001][0]}")
    assert (done.code, done.changed) == (0, 1), done.output
    now = pids()
    assert {port for port in SERVICES if now[port] != before[port]} == {5001}


def test_another_image_for_one_of_them(host, run_playbook, pids):
    host.check_output(f"cp {HOME}/shared/llamacpp-cuda-complete-*.sif /data/other.sif && chmod a+r /data/other.sif")
    before = pids()
    preview = run_playbook("update_image", "--check", "-e", "instance=5001", "-e", "llamacpp_image=/data/other.sif")
    assert (preview.code, preview.changed) == (0, 1), preview.output
    assert pids() == before
    done = run_playbook("update_image", "-e", "instance=5001", "-e", "llamacpp_image=/data/other.sif")
    assert (done.code, done.changed) == (0, 1), done.output
    now = pids()
    assert {port for port in SERVICES if now[port] != before[port]} == {5001}
    # The declaration has the former image.
    back = run_playbook("deploy-5001")
    assert (back.code, back.changed) == (0, 1), back.output
    assert "image: /data/other.sif -> " in back.output


def test_remove_one_and_the_files_of_others_stay(host, run_playbook, pids):
    assert run_playbook("remove").code != 0, "remove without an instance removed something"
    before = pids()
    done = run_playbook("remove", "-e", "instance=4402")
    assert (done.code, done.changed) == (0, 1), done.output
    assert pids() == {port: pid for port, pid in before.items() if port != 4402}
    assert not host.file(f"{HOME}/{SERVICES[4402][0]}").exists
    assert host.file("/data/models/SmolLM2-tiny.gguf").exists
    assert "4402" not in host.check_output("crontab -u operator -l; ls -a %s", HOME)
    assert health(host, 4403) == "200"


def test_a_second_service_on_an_exclusive_gpu_is_refused(lab, run_playbook, pids, tmp_path):
    """The GPU accepts one process, and MPS does not run."""
    before = pids()
    (tmp_path / "gpus").write_text(f"auto rss\n{EXCLUSIVE}\n")
    lab("gpu", "gpu1", "set", str(tmp_path / "gpus"))
    try:
        refused = run_playbook("deploy-4402", "--check")
    finally:
        lab("gpu", "gpu1", "unset")
    assert refused.code != 0
    words = re.sub(r"\s+", " ", refused.output)
    assert "accepts one process (compute mode Exclusive_Process) and is used by" in words, refused.output
    assert "or run NVIDIA's MPS" in words
    assert pids() == before


def test_remove_one_with_the_files_that_no_other_uses(host, run_playbook, pids):
    """It has a model of its own in five parts; all use the image."""
    before, kept = pids(), host.check_output(f"ls {HOME}/shared/*.sif /data/models/GLM*/*/*.gguf /data/models/*.gguf")
    words = ("-e", "instance=5001", "-e", "llamacpp_remove_files=true")
    preview = run_playbook("remove", "--check", *words)
    assert (preview.code, preview.changed) == (0, 2), preview.output
    assert pids() == before

    done = run_playbook("remove", *words)

    assert (done.code, done.changed) == (0, 2), done.output
    assert pids() == {port: pid for port, pid in before.items() if port != 5001}
    assert host.run("find /data/models -path '*DeepSeek*' -type f").stdout == ""
    assert host.check_output(f"ls {HOME}/shared/*.sif /data/models/GLM*/*/*.gguf /data/models/*.gguf") == kept
