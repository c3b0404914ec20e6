# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models from the hub behind its CDN, and from a mirror of it that was not written here; whole and in parts."""

import pytest

FOLDER = "/data/models/brought"


def options_of(servers, model, path, endpoint=None, **more):
    options = {"repo": model.repo, "file": model.file, "path": path, "endpoint": endpoint or servers.hub, **more}
    return ("gguf_model", options)


@pytest.fixture(scope="module")
def answers(servers, whole, split, tasks, host):
    """For each source: the preview of check mode, the run, a second run, and a third with another file name."""
    part = "SmolLM2-135M-Instruct.Q4_1-00001-of-00003.gguf"
    sources = {
        "hub": options_of(servers, whole, f"{FOLDER}/hub/whole.gguf"),
        "hub, split": options_of(servers, split, f"{FOLDER}/split/{part}"),
        "mirror": options_of(servers, whole, f"{FOLDER}/mirror/whole.gguf", servers.mirror),
        "mirror, split": options_of(servers, split, f"{FOLDER}/mirror-split/{part}", servers.mirror),
    }
    again = {"file": "split/*-of-00003.gguf", "path": f"{FOLDER}/split/{part.replace('00001', '00003')}"}
    calls = [(*call, check) for call in sources.values() for check in (True, False, False)]
    calls.append(("gguf_model", {**sources["hub, split"][1], **again}, False))
    servers.asked(), servers.requests()
    given = tasks(calls)
    found = {name: given[3 * number : 3 * number + 3] for number, name in enumerate(sources)}
    yield {**found, "pattern": given[-1], "asked": servers.asked(), "requests": servers.requests()}
    host.check_output(f"rm -rf {FOLDER}")


ALL = ["hub", "hub, split", "mirror", "mirror, split"]


@pytest.mark.parametrize("name", ALL)
def test_check_mode_previews_what_is_done(answers, name):
    previewed, done, dummy = answers[name]

    for key in ("changed", "actions", "reasons"):
        assert previewed[key] == done[key], key
    known = {key: value for key, value in previewed["model"].items() if value is not None}
    assert {key: done["model"][key] for key in known} == known
    assert previewed["changed"] is True
    assert "transfer" not in previewed


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
    returned = answers[name][1]["model"]
    assert (returned["size"], returned["sha256"]) == (model.size, model.digests[0])
    assert (returned["architecture"], returned["quantization"], returned["parameters"]) == ("llama", "Q4_1", 134515008)


@pytest.mark.parametrize(("name", "folder"), [("hub, split", "split"), ("mirror, split", "mirror-split")])
def test_all_parts_are_whole(answers, split, arrived, name, folder):
    arrived(f"{FOLDER}/{folder}", split)
    returned = answers[name][1]["model"]
    assert [file["sha256"] for file in returned["files"]] == split.digests
    assert returned["parameters"] == 134515008


def test_any_part_and_the_pattern_mean_the_same_model(answers):
    assert answers["pattern"]["changed"] is False, answers["pattern"]
    assert answers["pattern"]["model"] == answers["hub, split"][1]["model"]


def test_the_cdn_gave_the_bytes_in_ranges(answers, whole, split):
    """Once for the hub, once for the mirror, which keeps what it got."""
    ranges = [one for one in answers["requests"] if one.status == 206]

    assert sum(one.sent for one in ranges) >= whole.size + split.size
    assert {one.status for one in answers["requests"]} <= {200, 206}


def test_the_hub_is_asked_once_by_a_second_run(direct, servers, whole, home):
    options = options_of(servers, whole, f"{home}/m.gguf")[1]
    assert direct.run("gguf_model", **options)["changed"]
    servers.asked()

    assert direct.run("gguf_model", **options)["changed"] is False
    assert [one[:2] for one in servers.asked()] == [["hub", "GET"]]


def test_signed_addresses_that_expire_are_asked_for_again(direct, servers, whole, home, arrived):
    servers.switch(url_seconds=0.3)

    done = direct.run("gguf_model", **options_of(servers, whole, f"{home}/m.gguf", connections=1, max_rate="80M")[1])

    assert done["changed"], done
    arrived(home, whole)
    assert [one for one in servers.requests() if one.status == 403]


def test_a_hub_that_limits_is_waited_for(direct, servers, small, home, arrived):
    servers.switch(limit=1, retry_after=1)

    assert direct.run("gguf_model", **options_of(servers, small, f"{home}/small-00001-of-00003.gguf")[1])["changed"]
    arrived(home, small)


def test_a_mirror_that_is_away_is_told_in_a_sentence(direct, servers, whole, home, sentence):
    words = sentence(direct.run("gguf_model", **options_of(servers, whole, f"{home}/m.gguf", "http://controller:9")[1]))

    assert "http://controller:9" in words
