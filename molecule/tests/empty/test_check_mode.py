# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode on a host where nothing is there yet."""


def test_predicts_the_deploy_and_touches_nothing(instance, deploy):
    before = instance.snapshot()

    foretold = deploy("--check", "--diff")

    assert foretold.failed == 0
    assert foretold.tasks >= {
        "Create the home",
        "Create the Python environment",
        "Fetch the models",
        "Bring the instances to the desired state",
    }, foretold.output
    assert '+    "/models/SmolLM2-135M-Instruct.Q4_1.gguf",' in foretold.output
    assert '+    "CUDA_VISIBLE_DEVICES=0,1,2,3",' in foretold.output
    assert instance.snapshot() == before
    assert instance.leftovers() == ""
