# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Problems that are known before a change: the change is refused with a message, and the server continues."""

import pytest

MODEL = "/data/models/SmolLM2-tiny.gguf"
UUID = "GPU-2f5a1c00-fa4e-4e56-8d4c-000000000002"
# GPU 2 of the fake: ... total, reserved, used (MiB), utilization, MIG, ECC, compute mode, what every call answers, name
GPU = "gpu 2 " + UUID + " 00000000:9C:00.0 143771 625 {used} 0 {mig} 1 {mode} {answer} NVIDIA H200 NVL"


def gpu(used=0, mig=0, mode=0, answer=0):
    return GPU.format(used=used, mig=mig, mode=mode, answer=answer)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param([gpu(answer=15)], ["GPU 2", "lost"], id="lost"),
        pytest.param([gpu(used=143000)], ["does not fit on GPU 2", "MiB too little"], id="memory_taken"),
        pytest.param([gpu(mig=1)], ["MIG is on for GPU 2", "nvidia-smi -i 2 -mig 0"], id="mig"),
        pytest.param(
            [gpu(used=900, mode=3), "proc 2 1 900"], ["Exclusive_Process", "pid 1", "MPS"], id="exclusive_and_used"
        ),
        pytest.param([gpu(mode=2)], ["GPU 2", "compute mode Prohibited"], id="prohibited"),
        pytest.param(["init_rc 18"], ["do not match", "Reboot the host"], id="library_of_another_driver"),
        pytest.param(["count 2"], ['There is no GPU "2"', 'There is no GPU "3"'], id="gone"),
    ],
)
def test_gpus(untouched, ask, gpus, lines, words):
    """The GPUs are fakes: this tests how NVML's values are read, not CUDA."""
    gpus(*lines)

    refused = ask()

    assert refused.failed == 1, refused.output
    for word in words:
        assert word in refused.output


def test_a_port_of_another_program(untouched, ask, host):
    host.check_output("nohup setsid python3 -m http.server 4499 > /dev/null 2>&1 & sleep 1")
    try:
        refused = ask(port=4499)
    finally:
        host.check_output("pkill -f 'http.server 449[9]'")

    assert refused.failed == 1, refused.output
    assert "port: 4499 is in use by a process of user root" in refused.output


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param("head -c 3000000 {from} > {to}", ["/tmp/fault.gguf", "bytes"], id="truncated"),
        pytest.param("echo no model > {to}", ["/tmp/fault.gguf", "GGUF"], id="no_gguf"),
        pytest.param("cp {from} {to}; chmod 000 {to}", ["/tmp/fault.gguf", "ermission"], id="unreadable"),
        pytest.param("rm -f {to}", ["/tmp/fault.gguf is not there"], id="missing"),
    ],
)
def test_models(untouched, ask, host, make, words):
    host.check_output(make.replace("{from}", MODEL).replace("{to}", "/tmp/fault.gguf"))
    try:
        refused = ask(model="/tmp/fault.gguf", binds=[])
    finally:
        host.check_output("rm -f /tmp/fault.gguf")

    assert refused.failed == 1, refused.output
    assert "Traceback" not in refused.output
    for word in words:
        assert word in refused.output


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param("head -c 300000 {from} > {to}", ["/tmp/fault.sif"], id="truncated"),
        pytest.param("echo no image > {to}", ["/tmp/fault.sif", "SIF"], id="no_sif"),
        pytest.param("cp {from} {to}; chmod 000 {to}", ["/tmp/fault.sif cannot be read"], id="unreadable"),
    ],
)
def test_images(untouched, ask, host, instance, make, words):
    image = instance.record()["spec"]["image"]
    host.check_output(make.replace("{from}", image).replace("{to}", "/tmp/fault.sif"))
    try:
        refused = ask(image="/tmp/fault.sif")
    finally:
        host.check_output("rm -f /tmp/fault.sif")

    assert refused.failed == 1, refused.output
    assert "Traceback" not in refused.output
    for word in words:
        assert word in refused.output


def test_an_option_that_a_new_image_does_not_know(instance, ask, host):
    """The help of the program in the new image lacks an option of the spec."""
    pid, record = instance.pid(), instance.record()
    asked = 'exec sh -c "llama-server --help | grep -v -- --min-p"'
    script = f'#!/bin/sh\n[ "$1" != --help ] || {asked}\nexec llama-server "$@"\n'
    host.check_output("mkdir -p /tmp/newer && printf %s > /tmp/newer/llama-server", script)
    host.check_output("chmod -R a+rx /tmp/newer")
    try:
        refused = ask(server_path="/newer/llama-server", binds=["/data/models:/models", "/tmp/newer:/newer:ro"])
    finally:
        host.check_output("rm -r /tmp/newer")

    assert refused.failed == 1, refused.output
    assert "unknown option --min-p" in refused.output
    # The image's answers are kept in a file, so not every file is the same.
    assert (instance.pid(), instance.record(), instance.health()) == (pid, record, 200)


def test_two_runs_at_once(untouched, ask, host, site):
    """The second run waits for lock_timeout and then names the holder of the lock."""
    lock = f"{site.home}/.4403-glm-4.7-flash-q4.lock"
    holder = '{"pid": 1, "user": "anna", "since": "2026-10-01T12:00:00Z", "what": "bringing it to started", "from": ""}'
    host.check_output(
        f"printf %s > {lock}; chown operator: {lock}; nohup setsid flock {lock} sleep 60 > /dev/null 2>&1 &", holder
    )
    try:
        refused = ask(lock_timeout=1)
    finally:
        host.check_output("pkill -f 'slee[p] 60'; rm -f %s", lock)

    assert refused.failed == 1, refused.output
    assert "Another run is at work" in refused.output
    assert "pid 1 of anna" in refused.output
