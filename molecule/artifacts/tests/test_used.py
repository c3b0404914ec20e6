# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model and the image of an instance are not removed without force."""

import pytest

MODEL = "/data/models/SmolLM2-tiny.gguf"


@pytest.fixture(scope="module")
def image(deploy, login):
    """Deploy the instance; returns the path of its image."""
    done = deploy()
    assert done.failed == 0, done.output
    return login.check_output("ls ~/llamacpp/shared/llamacpp-cuda-complete-*.sif")


def test_absent_is_refused_while_an_instance_uses_the_file(image, direct, login, instance, sentence):
    """Check mode refuses it too."""
    for module, path in (("gguf_model", MODEL), ("sif_image", image)):
        for check in (True, False):
            message = sentence(direct.run(module, check, path=path, state="absent"))
            assert "4403-glm-4.7-flash-q4" in message and "force" in message, message
        assert login.file(path).is_file
    assert instance.health() == 200


def test_absent_is_refused_while_a_process_has_the_file_open(image, direct, login, home, sentence):
    login.check_output(
        f"cp --reflink=auto {MODEL} {home}/m.gguf && setsid -f sleep 50 < {home}/m.gguf > /dev/null 2>&1"
    )

    message = sentence(direct.run("gguf_model", path=f"{home}/m.gguf", state="absent"))
    assert "sleep 50" in message, message
    login.check_output("pkill -f 'sleep 50'")
    assert direct.run("gguf_model", path=f"{home}/m.gguf", state="absent")["changed"]


def test_force_removes_it_and_the_server_goes_on(image, direct, login, instance):
    """The server has the file open. The next deploy fetches it again."""
    removed = direct.run("gguf_model", path=MODEL, state="absent", force=True)

    assert removed["changed"], removed
    assert not login.file(MODEL).exists
    assert instance.health() == 200
