# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode on a host without an instance."""

ENVIRONMENT = {"Create the home", "Create the Python environment"}


def test_preview_of_the_deploy_changes_nothing(site, instance, deploy):
    before = instance.snapshot()

    preview = deploy("--check", "--diff")

    assert preview.failed == 0
    assert preview.tasks >= {"Fetch the models", "Bring the instances to the desired state"}, preview.output
    assert preview.tasks & ENVIRONMENT == (ENVIRONMENT if site.fresh else set()), preview.output
    assert f'+    "/models/{site.model}",' in preview.output
    assert '+    "CUDA_VISIBLE_DEVICES=0,1,2,3",' in preview.output
    assert instance.snapshot() == before
    assert instance.leftovers() == ""
