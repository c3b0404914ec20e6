# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's protocol, against the lab's hub; and that hub, against the real client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.hub.hub import Hub, HubError
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._artifact.hub.naming import names_of_model
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import retry
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import FetchError, fetch
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import OperatorError
from ansible_collections.gpufleet.llamacpp.tests.lab import hub as lab
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder as build

REPO = "unsloth/Tiny-GGUF"
CONTENT = build.model()
TOKEN = "hf_neverToBeSeenAnywhere0123456789"
BIG = [f"UD-Q2_K_XL/big-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
NAMES = ["README.md", "tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", *BIG]


@pytest.fixture
def served():
    with lab.Hub() as hub:
        files = {name: name.encode() * 100 for name in NAMES}
        hub.repo(REPO).commit({**files, "tiny-Q4_K_M.gguf": CONTENT})
        yield hub


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that a client would have waited, instead of waiting."""
    found = []
    # Not the function of the module time itself, which is everybody's: other threads sleep, too.
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=found.append))
    return found


def listed(served, file="tiny-Q4_K_M.gguf", revision="main", token=None):
    hub = Hub(served.endpoint, token)
    at = hub.revision(REPO, revision)
    return hub.model_files(REPO, at, file)


def refusal(served, **more):
    with pytest.raises(HubError) as raised:
        listed(served, **more)
    return raised.value


def sha256(served, name):
    return next(iter(served.repos[REPO].commits.values()))[name].sha256


def test_a_file_has_commit_size_and_digest_in_two_requests(served):
    (one,) = listed(served)
    assert (one.name, one.size, one.sha256) == ("tiny-Q4_K_M.gguf", len(CONTENT), sha256(served, "tiny-Q4_K_M.gguf"))
    commit = served.repos[REPO].branches["main"]
    assert served.questions() == [
        f"GET /api/models/{REPO}/revision/main",
        f"POST /api/models/{REPO}/paths-info/{commit}",
    ]


@pytest.mark.parametrize("file", [*BIG, "UD-Q2_K_XL/*-of-00003.gguf", "*big*", "UD-Q2_K_XL/big-00002-of-*.gguf"])
def test_any_part_or_pattern_is_the_whole_model(served, file):
    assert [one.name for one in listed(served, file)] == BIG
    assert all(one.sha256 for one in listed(served, file))


def test_a_branch_with_a_slash_and_a_tag(served):
    served.repos[REPO].commit({"only.gguf": CONTENT}, "refs/pr/1")
    assert listed(served, "only.gguf", "refs/pr/1")[0].size == len(CONTENT)


def test_the_whole_set_is_of_one_commit_though_the_branch_moves(served):
    hub = Hub(served.endpoint)
    at = hub.revision(REPO, "main")
    before = served.repos[REPO].branches["main"]
    served.repos[REPO].commit({"tiny-Q4_K_M.gguf": b"other"})
    assert hub.model_files(REPO, at, "tiny-Q4_K_M.gguf")[0].size == len(CONTENT)
    assert at.commit == before


@pytest.mark.parametrize(
    ("switch", "value"), [("paths_info", False), ("siblings", False), ("inline", True), ("linked", False)]
)
def test_hubs_that_know_less_are_understood(served, switch, value):
    setattr(served.switches, switch, value)
    served.switches.page = 2
    assert [one.name for one in listed(served, BIG[2])] == BIG
    assert [one.sha256 for one in listed(served, BIG[2])] == [sha256(served, name) for name in BIG]


def test_a_masked_digest_is_none_and_the_address_tells_it(served):
    repo = served.repos[REPO]
    repo.gated, repo.readers = True, {TOKEN}
    assert listed(served, token=TOKEN)[0].sha256 == sha256(served, "tiny-Q4_K_M.gguf")
    error = refusal(served)
    assert error.code == "GatedRepo"
    assert "*" * 10 not in str(error)


def test_a_mirror_that_masks_and_gives_the_file_at_once(served, monkeypatch):
    monkeypatch.setattr(lab, "_is_lfs", lambda name, file: False)
    served.switches.inline = True
    # As of a small git blob: neither tree nor address have a sha256, only a size.
    (one,) = listed(served)
    assert (one.size, one.sha256) == (len(CONTENT), None)


# Refusals


def test_each_refusal_says_what_to_do(served):
    repo = served.repos[REPO]
    assert "Give a branch, a tag" in str(refusal(served, revision="nope"))
    repo.gated, repo.readers = True, {"other"}
    assert f"Accept its licence on {served.endpoint}/{REPO}, and give a token of that account" in str(refusal(served))
    assert "with the account of the given token" in str(refusal(served, token=TOKEN))
    repo.private = True
    assert f"has no repository {REPO}, or it is private" in str(refusal(served))
    assert "give a token" in str(refusal(served))
    error = refusal(served, token=TOKEN)
    assert "Check repo, and that the account of the given token may read it." in str(error)
    assert TOKEN not in str(error)


def test_a_file_that_is_not_there_has_near_names(served):
    assert "Similar names: tiny-Q4_K_M.gguf" in str(refusal(served, file="tiny-Q4_K_L.gguf"))
    assert "It has tiny-Q4_K_M.gguf, tiny-Q8_0.gguf" in str(refusal(served, file="zzz*.gguf"))


def test_names_of_model_refuses_what_is_not_one_whole_model():
    with pytest.raises(OperatorError, match=r"means 2 models of it: a\.gguf, b\.gguf"):
        names_of_model("*.gguf", ["a.gguf", "b.gguf"], "it")
    with pytest.raises(OperatorError, match="it has no x-00002-of-00002.gguf of the split model"):
        names_of_model("x-00001-of-00002.gguf", ["x-00001-of-00002.gguf"], "it")
    with pytest.raises(OperatorError, match="no GGUF file at all"):
        names_of_model("a.gguf", ["model.safetensors"], "it")


def test_a_login_page_is_no_hub(served):
    served.switches.login_page = True
    assert "is no model hub, or a login page is in front of it" in str(refusal(served))


def test_nothing_listens(served, pauses):
    hub = Hub("http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"does not answer: .*refused.*Check endpoint"):
        hub.revision(REPO, "main")
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize("kind", ["limit", "unavailable"])
def test_a_busy_hub_is_asked_again_when_it_says(served, pauses, kind):
    setattr(served.switches, kind, 0 if kind == "limit" else 2)
    served.switches.retry_after = 7
    assert listed(served)[0].sha256
    assert pauses == ([7.0] if kind == "limit" else [7.0, 7.0])


def test_a_hub_that_wants_too_much_patience_is_not_waited_for(served, pauses):
    served.switches.limit, served.switches.retry_after = 0, 4000
    assert "limits the number of requests" in str(refusal(served))
    assert pauses == []


# Fetching


def get(served, tmp_path, token=None, **more):
    hub = Hub(served.endpoint, token)
    at = hub.revision(REPO, "main")
    digest = sha256(served, "tiny-Q4_K_M.gguf")
    source = hub.source(REPO, at.commit, "tiny-Q4_K_M.gguf", digest)
    return fetch([source], str(tmp_path / "m.gguf"), size=len(CONTENT), sha256=digest, **more)


def test_the_token_goes_to_the_hub_and_nowhere_else(served, tmp_path):
    repo = served.repos[REPO]
    repo.gated, repo.readers = True, {TOKEN}
    get(served, tmp_path, TOKEN)
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT
    given = {(one.server, TOKEN in str(one.headers)) for one in served.asked}
    assert given == {("hub", True), ("cdn", False)}


def test_an_address_that_expires_is_resolved_again(served, tmp_path):
    served.switches.url_uses = 3
    done = get(served, tmp_path, chunk=64, connections=1)
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT
    assert done.bytes_fetched >= len(CONTENT)
    assert [one for one in served.questions() if one.startswith("HEAD")]


def test_a_repository_that_was_renamed_is_found(served, tmp_path):
    served.switches.moved = {"old/name": REPO}
    assert Hub(served.endpoint).revision("old/name", "main").commit == served.repos[REPO].branches["main"]
    linked = Hub(served.endpoint).linked("old/name", "main", "tiny-Q4_K_M.gguf")
    assert linked.sha256 == sha256(served, "tiny-Q4_K_M.gguf")
    assert linked.url.startswith(served.cdn)


def test_a_file_outside_lfs_is_found_behind_the_hubs_own_redirect(served):
    linked = Hub(served.endpoint, TOKEN).linked(REPO, "main", "README.md")
    assert linked.sha256 is None
    assert requests.get(linked.url, headers=dict(linked.headers), timeout=5).content == b"README.md" * 100


def test_a_lost_licence_is_an_error_of_the_fetch(served, tmp_path):
    served.repos[REPO].readers = {"other"}
    hub = Hub(served.endpoint, TOKEN)
    at = hub.revision(REPO, "main")
    served.repos[REPO].gated = True
    with pytest.raises(FetchError, match="is gated .*Accept its licence") as raised:
        fetch([hub.source(REPO, at.commit, "tiny-Q4_K_M.gguf", None)], str(tmp_path / "m"), size=None, sha256=None)
    assert TOKEN not in str(raised.value)


# The lab's hub, and the client that the real hub's makers give


@pytest.mark.parametrize("arguments", [["tiny-Q4_K_M.gguf"], ["--include", "UD-Q2_K_XL/*"], [*NAMES]])
def test_the_real_client_downloads_from_the_labs_hub(served, tmp_path, arguments):
    served.switches.page = 3
    repo = served.repos[REPO]
    repo.gated, repo.readers = True, {TOKEN}
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": served.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_TOKEN": TOKEN,
    }
    command = [str(Path(sys.executable).parent / "hf"), "download", REPO, *arguments]
    target = tmp_path / "got"
    done = subprocess.run(
        [*command, "--local-dir", str(target)], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    got = {str(one.relative_to(target)) for one in target.rglob("*") if one.is_file() and ".cache" not in one.parts}
    assert got == set(BIG if arguments[0] == "--include" else arguments)
    held = next(iter(repo.commits.values()))
    assert all((target / name).read_bytes() == held[name].read() for name in got)


def test_the_real_client_is_refused_as_by_the_real_hub(served, tmp_path):
    from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_url

    api = HfApi(endpoint=served.endpoint, token=False)
    repo = served.repos[REPO]
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info(REPO, revision="nope")
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("no/such")
    url = hf_hub_url(REPO, "nope.gguf", endpoint=served.endpoint)
    with pytest.raises(errors.EntryNotFoundError):
        get_hf_file_metadata(url, token=False)
    repo.gated = True
    with pytest.raises(errors.GatedRepoError):
        get_hf_file_metadata(hf_hub_url(REPO, "tiny-Q8_0.gguf", endpoint=served.endpoint), token=False)
    found = api.get_paths_info(REPO, BIG, revision="main")
    assert [one.path for one in found] == BIG
    assert {one.lfs.sha256 for one in found} == {"*" * 64}
