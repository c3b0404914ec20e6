# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode on a host without an instance."""

ENVIRONMENT = {"Create the home", "Create the Python environment"}
UUIDS = [f"GPU-{n}f5a1c00-fa4e-4e56-8d4c-00000000000{n}" for n in range(4)]


def test_preview_of_the_deploy_changes_nothing(site, instance, deploy):
    before = instance.snapshot()

    preview = deploy("--check", "--diff")

    assert preview.failed == 0
    assert preview.tasks >= {"Fetch the models", "Bring the instances to the desired state"}, preview.output
    assert preview.tasks & ENVIRONMENT == (ENVIRONMENT if site.fresh else set()), preview.output
    assert f'+    "/models/{site.model}",' in preview.output
    # Without the environment there is no library that knows the UUIDs of the GPUs.
    gpus = "0,1,2,3" if site.fresh else ",".join(UUIDS)
    assert f'+    "CUDA_VISIBLE_DEVICES={gpus}",' in preview.output
    assert instance.snapshot() == before
    assert instance.leftovers() == ""
