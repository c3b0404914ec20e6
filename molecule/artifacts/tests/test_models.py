# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models from the hub and its CDN, and from a mirror of the hub (olah); in one file and in parts."""

import pytest

FOLDER = "/data/models/brought"


def call_of(servers, model, path, endpoint=None, **more):
    options = {"repo": model.repo, "file": model.file, "path": path, "endpoint": endpoint or servers.hub, **more}
    return ("gguf_model", options)


@pytest.fixture(scope="module")
def answers(servers, whole, split, tasks, host):
    """The results of check mode, of a run and of a second run for each call; once more with another name."""
    part = "SmolLM2-135M-Instruct.Q4_1-00001-of-00003.gguf"
    calls_by_name = {
        "hub": call_of(servers, whole, f"{FOLDER}/hub/whole.gguf"),
        "hub, split": call_of(servers, split, f"{FOLDER}/split/{part}"),
        "mirror": call_of(servers, whole, f"{FOLDER}/mirror/whole.gguf", servers.mirror),
        "mirror, split": call_of(servers, split, f"{FOLDER}/mirror-split/{part}", servers.mirror),
    }
    again = {"file": "split/*-of-00003.gguf", "path": f"{FOLDER}/split/{part.replace('00001', '00003')}"}
    calls = [(*call, check) for call in calls_by_name.values() for check in (True, False, False)]
    calls.append(("gguf_model", {**calls_by_name["hub, split"][1], **again}, False))
    servers.asked(), servers.requests()
    given = tasks(calls)
    found = {name: given[3 * number : 3 * number + 3] for number, name in enumerate(calls_by_name)}
    yield {**found, "pattern": given[-1], "asked": servers.asked(), "requests": servers.requests()}
    host.check_output(f"rm -rf {FOLDER}")


ALL = ["hub", "hub, split", "mirror", "mirror, split"]


@pytest.mark.parametrize("name", ALL)
def test_check_mode_previews_the_run(answers, name):
    preview, done, dummy = answers[name]

    for key in ("changed", "actions", "reasons"):
        assert preview[key] == done[key], key
    known = {key: value for key, value in preview["model"].items() if value is not None}
    assert {key: done["model"][key] for key in known} == known
    assert preview["changed"] is True
    assert "transfer" not in preview


@pytest.mark.parametrize("name", ALL)
def test_a_second_run_changes_and_fetches_nothing(answers, name):
    dummy, done, again = answers[name]

    assert again["changed"] is False, again
    assert again["model"] == done["model"]
    assert "transfer" not in again


@pytest.mark.parametrize(("name", "model", "folder"), [("hub", "whole", "hub"), ("mirror", "whole", "mirror")])
def test_the_file_is_whole(answers, request, arrived, name, model, folder):
    model = request.getfixturevalue(model)

    arrived(f"{FOLDER}/{folder}", model)
    info = answers[name][1]["model"]
    assert (info["size"], info["sha256"]) == (model.size, model.digests[0])
    assert (info["architecture"], info["quantization"], info["parameters"]) == (
        "llama",
        "Q4_1",
        134515008,
    )


@pytest.mark.parametrize(("name", "folder"), [("hub, split", "split"), ("mirror, split", "mirror-split")])
def test_all_parts_are_whole(answers, split, arrived, name, folder):
    arrived(f"{FOLDER}/{folder}", split)
    info = answers[name][1]["model"]
    assert [file["sha256"] for file in info["files"]] == split.digests
    assert info["parameters"] == 134515008


def test_any_part_and_the_pattern_mean_the_same_model(answers):
    assert answers["pattern"]["changed"] is False, answers["pattern"]
    assert answers["pattern"]["model"] == answers["hub, split"][1]["model"]


def test_the_cdn_gave_the_bytes_in_ranges(answers, whole, split):
    """Once for the hub, and once for the mirror, which keeps them."""
    ranges = [one for one in answers["requests"] if one.status == 206]

    assert sum(one.sent for one in ranges) >= whole.size + split.size
    assert {one.status for one in answers["requests"]} <= {200, 206}


def test_the_hub_is_asked_once_by_a_second_run(direct, servers, whole, home):
    options = call_of(servers, whole, f"{home}/m.gguf")[1]
    assert direct.run("gguf_model", **options)["changed"]
    servers.asked()

    assert direct.run("gguf_model", **options)["changed"] is False
    assert [one[:2] for one in servers.asked()] == [["hub", "GET"]]


def test_signed_addresses_that_expire_are_asked_for_again(direct, servers, whole, home, arrived):
    servers.switch(url_seconds=0.3)

    done = direct.run("gguf_model", **call_of(servers, whole, f"{home}/m.gguf", connections=1, max_rate="80M")[1])

    assert done["changed"], done
    arrived(home, whole)
    assert [one for one in servers.requests() if one.status == 403]


def test_a_rate_limit_of_the_hub_is_waited_for(direct, servers, small, home, arrived):
    servers.switch(limit=1, retry_after=1)

    assert direct.run("gguf_model", **call_of(servers, small, f"{home}/small-00001-of-00003.gguf")[1])["changed"]
    arrived(home, small)


def test_a_missing_mirror_is_reported(direct, servers, whole, home, sentence):
    words = sentence(direct.run("gguf_model", **call_of(servers, whole, f"{home}/m.gguf", "http://controller:9")[1]))

    assert "http://controller:9" in words
