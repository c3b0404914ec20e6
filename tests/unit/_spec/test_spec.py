# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The spec: what is refused and in which words, and the canonical form of what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._result import Refusal
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import spec
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import HOME, a_spec, params

ADDRESS = "https://files.example.org/a/llamacpp.sif?token=x#y"
SHA256 = "ab" * 32

# Options, what of the value the message shows, and what it says to do.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "''", "Use letters"),
    ({"name": "a/b"}, "'a/b'", "Use letters"),
    ({"name": "../x"}, "'../x'", "Use letters"),
    ({"name": "a..b"}, "'a..b'", "without '..'"),
    ({"name": ".hidden"}, "'.hidden'", "beginning with a letter or digit"),
    ({"name": "-rf"}, "'-rf'", "beginning with a letter or digit"),
    ({"name": "a b"}, "'a b'", "Use letters"),
    ({"name": "a\nb"}, "a\\nb", "Use letters"),
    ({"name": "a\n"}, "a\\n", "Use letters"),
    ({"name": "ä"}, "'ä'", "Use letters"),
    ({"name": "x" * 65}, "x" * 65, "at most 64"),
    ({"name": "shared"}, "'shared'", "Choose another"),
    ({"name": "venv"}, "'venv'", "Choose another"),
    ({"name": "supervisor.d"}, "'supervisor.d'", "Choose another"),
    ({"image": ""}, "''", "names no file"),
    ({"image": "/srv/"}, "'/srv/'", "names no file"),
    ({"image": "https://files.example.org/", "image_sha256": SHA256}, "example.org/'", "names no file"),
    ({"image": "../x.sif"}, "../x.sif", "absolute path"),
    ({"image": "/a/../x.sif"}, "/a/../x.sif", "absolute path"),
    ({"image": "ftp://x/y.sif", "image_sha256": SHA256}, "ftp://", "a path, or begin with http://"),
    ({"image": "oras://r.example.org/Name:v1"}, "'Name'", "oras://registry/name:tag"),
    ({"image": "docker://u:secret@r.example.org/name"}, "image: the part behind the @", "docker://registry/name:tag"),
    ({"image": ADDRESS}, "https://files.example.org/a/llamacpp.sif needs", "needs the sha256"),
    ({"image": "docker://x", "image_sha256": SHA256}, "docker.io/library/x:latest", "@sha256:<digest>"),
    ({"image": "library://a/b/c:v1", "pull": "always"}, "library://a/b/c:v1", "Give image_sha256, or leave pull"),
    ({"image_sha256": "ab"}, "'ab'", "64 hexadecimal digits"),
    ({"image_sha256": "g" * 64}, "g" * 64, "64 hexadecimal digits"),
    ({"model": "m.gguf"}, "'m.gguf'", "absolute path"),
    ({"model": "/data/../etc/m.gguf"}, "/data/../etc/m.gguf", "without '..'"),
    ({"model": "/data/a\nb.gguf"}, "/data/a\\nb.gguf", "control characters"),
    ({"model": "/data/a:b/m.gguf"}, "/data/a:b/m.gguf", "Rename the folder"),
    ({"model": "/data/a,b/m.gguf"}, "/data/a,b/m.gguf", "Rename the folder"),
    ({"model": f"{HOME}/4403-glm-4.7-flash-q4/m.gguf"}, "q4/m.gguf", "Put it elsewhere"),
    ({"image": "4403-glm-4.7-flash-q4/x.sif"}, "q4/x.sif", "Put it elsewhere"),
    ({"api_key_file": "keys"}, "'keys'", "absolute path"),
    ({"api_key_file": "/a:b"}, "/a:b", "--bind"),
    ({"server_path": "llama-server"}, "'llama-server'", "absolute path"),
    ({"host": ""}, "''", "such as 127.0.0.1"),
    ({"host": "127.0.0.1,::1"}, "127.0.0.1,::1", "one address"),
    ({"host": "/run/x.sock"}, "/run/x.sock", "one address"),
    ({"host": "x.sock"}, "x.sock", "one address"),
    ({"host": "--port"}, "--port", "one address"),
    ({"host": "a b"}, "a b", "one address"),
    ({"host": "a\n"}, "a\\n", "one address"),
    ({"port": 0}, "port: 0", "1 to 65535"),
    ({"port": 65536}, "65536", "1 to 65535"),
    ({"port": -1}, "-1", "1 to 65535"),
    ({"gpus": ["x"]}, "'x'", "nvidia-smi -L"),
    ({"gpus": ["-1"]}, "'-1'", "nvidia-smi -L"),
    ({"gpus": ["0,1"]}, "'0,1'", "nvidia-smi -L"),
    ({"gpus": ["0", "1", "0"]}, "0,1,0", "Name each once"),
    ({"gpu_layers": "many"}, "'many'", "auto or all"),
    ({"gpu_layers": "-1"}, "'-1'", "auto or all"),
    ({"gpu_layers": "99x"}, "'99x'", "auto or all"),
    ({"context_size": -1}, "-1", "0 is the model's own"),
    ({"context_size": 2**31}, str(2**31), "0 to 2147483647"),
    ({"threads": 0}, "threads: 0", "1 to 4096"),
    ({"threads": 4097}, "4097", "1 to 4096"),
    ({"wait_timeout": 0}, "wait_timeout: 0", "1 to 86400"),
    ({"drain_timeout": 3601}, "drain_timeout: 3601", "0 to 3600"),
    ({"lock_timeout": -1}, "lock_timeout: -1", "0 to 86400"),
    ({"alias": ""}, "alias: ''", "on one line"),
    ({"alias": "a\nb"}, "a\\nb", "on one line"),
    ({"env": {"1A": "x"}}, "'1A'", "Use letters"),
    ({"env": {"A B": "x"}}, "'A B'", "Use letters"),
    ({"env": {"A": "a\0b"}}, "value of A", "Take it out"),
    ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "CUDA_VISIBLE_DEVICES", "gpus"),
    ({"env": {"LLAMA_API_KEY": "secret"}}, "LLAMA_API_KEY", "api_key_file"),
    ({"binds": ["data:/models"]}, "'data:/models'", "/on/host:/in/container"),
    ({"binds": ["/data:models"]}, "'/data:models'", "/on/host:/in/container"),
    ({"binds": ["/data:/models:rx"]}, "'/data:/models:rx'", ":ro"),
    ({"binds": ["/data:/models,/etc:/x"]}, "'/data:/models,/etc:/x'", "without a comma"),
    ({"binds": ["/data/..:/models"]}, "'/data/..'", "without '..'"),
    ({"binds": [""]}, "''", "/on/host:/in/container"),
    ({"args": ["--port 1"]}, "--port", "the option port"),
    ({"args": ["-c", "1"]}, "-c", "the option context_size"),
    ({"args": ["--ctx_size 1"]}, "--ctx_size", "the option context_size"),
    ({"args": ["--api-key x"]}, "--api-key", "api_key_file"),
    ({"args": ["--hf-repo x/y"]}, "--hf-repo", "gguf_model"),
    ({"args": ["--version"]}, "--version", "prints and exits"),
    ({"args": ["--temp=1.0"]}, "'--temp=1.0'", "Write '--temp 1.0'"),
    ({"args": ["--a\0b"]}, "\\x00", "NUL byte"),
    ({"args": ["--hf-file x"]}, "--hf-file", "gguf_model"),
    ({"args": ["--gpt-oss-20b-default"]}, "--gpt-oss-20b-default", "Fetch it with gguf_model"),
    ({"args": ["--tools all"]}, "--tools lets clients", "write --tools into allow_options; else take it out"),
    ({"args": ["-ag"]}, "-ag lets clients", "write --agent into allow_options"),
    ({"args": ["--slot_save_path /x"]}, "--slot_save_path lets", "write --slot-save-path into allow_options"),
    ({"args": ["--rpc h:1"], "allow_options": ["--tools"]}, "--rpc gives memory", "write --rpc into"),
    ({"allow_options": ["tools"]}, "'tools'", "These are --tools, --agent,"),
    ({"env": {"LLAMA_ARG_TOOLS": "all"}}, "LLAMA_ARG_TOOLS lets clients", "write --tools into allow_options"),
    ({"env": {"LLAMA_ARG_RPC": "h:1"}}, "LLAMA_ARG_RPC gives", "write --rpc into allow_options"),
    ({"env": {"LLAMA_ARG_PORT": "1"}}, "LLAMA_ARG_PORT", "the option port"),
    ({"parallel": 0}, "parallel: 0", "1 to 4096 (slots)"),
    ({"parallel": 4, "args": ["-np 8"]}, "-np", "the option parallel"),
    ({"parallel": 4, "env": {"LLAMA_ARG_N_PARALLEL": "8"}}, "LLAMA_ARG_N_PARALLEL", "the option parallel"),
    ({"env": {"LLAMA_ARG_API_PREFIX": "/x"}}, "LLAMA_ARG_API_PREFIX", "the proxy in front"),
    ({"env": {"HF_TOKEN": "x"}}, "HF_TOKEN", "gguf_model"),
    ({"min_build": 0}, "min_build: 0", "such as 11434"),
]


@pytest.mark.parametrize(("changes", "shown", "remedy"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_a_wrong_option_is_shown_with_its_remedy(changes: dict[str, Any], shown: str, remedy: str) -> None:
    with pytest.raises(Refusal) as refused:
        spec.parse(params(**changes), HOME)
    assert len(refused.value.problems) == 1
    (problem,) = refused.value.problems
    message = str(problem)
    assert shown in message
    assert remedy in message
    assert problem.option in params()
    assert not problem.text.endswith(".")
    assert message.endswith((".", ")"))


def test_all_problems_at_once() -> None:
    wrong = {"name": "a/b", "port": 0, "threads": 0, "gpus": ["x", "y"], "args": ["--port 1", "--version"]}
    with pytest.raises(Refusal) as refused:
        spec.parse(params(**wrong), HOME)
    assert [problem.option for problem in refused.value.problems] == [
        "name",
        "port",
        "threads",
        "gpus",
        "gpus",
        "args",
        "args",
    ]
    assert str(refused.value).startswith("7 problems, nothing was changed:\n  1. name:")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a"},
        {"name": "x" * 64},
        {"name": "4403-glm-4.7_flash"},
        {"name": "shared2"},
        {"port": 1},
        {"port": 65535},
        {"host": "::1"},
        {"host": "[::]"},
        {"host": "gpu-1.example.org"},
        {"gpus": ["GPU-8a3c1f2e-0000-1111-2222-333344445555"]},
        {"gpus": None},
        {"gpu_layers": "auto"},
        {"gpu_layers": None},
        {"context_size": 0},
        {"threads": 4096},
        {"parallel": 8},
        {"args": ["--parallel 8"]},
        {"env": {"LLAMA_ARG_N_PARALLEL": "8"}},
        {"alias": "GLM 4.7, Flash"},
        {"binds": ["/data"]},
        {"binds": ["/data:/models:ro", "/etc/x:/x:rw"]},
        {"env": {"_A1": 5, "GGML_X": "a=b,c"}},
        {"model": "/data/a b'\"$/m.gguf"},
        {"args": ["--tools all", "-ag"], "allow_options": ["--tools", "--agent"]},
        {"args": ["--webui-mcp-proxy"], "allow_options": ["--webui_mcp_proxy"]},
        {"env": {"LLAMA_ARG_SLOT_SAVE_PATH": "/x"}, "allow_options": ["--slot-save-path"]},
        {"args": ["--no-agent", "--no-ui-mcp-proxy"]},
        {"min_build": 11434},
        {"args": ["--override-kv", "a=b", '--chat-template-kwargs {"a=b": true}', "--seed -1"]},
        {"image_sha256": SHA256.upper()},
        {"image": ADDRESS, "image_sha256": SHA256},
        {"image": "docker://ghcr.io/ggml-org/llama.cpp:server-cuda", "pull": "always"},
        {"image": "oras://r.example.org/llamacpp:v1", "image_sha256": SHA256},
        {"image": "library://a/b/c:v1", "pull": "always", "image_sha256": SHA256},
    ],
    ids=str,
)
def test_what_is_possible_is_not_refused(changes: dict[str, Any]) -> None:
    assert spec.parse(params(**changes), HOME).name


@pytest.mark.parametrize(
    ("entries", "argv"),
    [
        ([], []),
        (["--jinja"], ["--jinja"]),
        (["--temp 1.0"], ["--temp", "1.0"]),
        (["--temp   1.0"], ["--temp", "1.0"]),
        (["--temp\t1.0"], ["--temp", "1.0"]),
        (["--temp", "1.0"], ["--temp", "1.0"]),
        (['--kw {"a": "b c"}'], ["--kw", '{"a": "b c"}']),
        (["--grammar 'a  b' $(id)"], ["--grammar", "'a  b' $(id)"]),
        (["a value with blanks"], ["a value with blanks"]),
        (["--lora-scaled a.gguf", "0.5"], ["--lora-scaled", "a.gguf", "0.5"]),
        (["--seed -1"], ["--seed", "-1"]),
        ([""], [""]),
    ],
)
def test_split_args(entries: list[str], argv: list[str]) -> None:
    assert spec.split_args(entries) == argv


def test_the_canonical_form_survives_json() -> None:
    recorded = a_spec(env={"B": 2, "A": "1"}, gpus=["1", "0"]).as_dict()
    assert json.loads(json.dumps(recorded)) == recorded
    assert list(recorded["env"].items()) == [("A", "1"), ("B", "2")]
    assert recorded["gpus"] == ["1", "0"]
    assert recorded["args"][:3] == ["--jinja", "--fit", "on"]


def test_two_ways_to_say_the_same_are_one_spec() -> None:
    assert a_spec(args=["--temp 1.0"], env={"A": "1", "B": "2"}) == a_spec(args=["--temp", "1.0"], env={"B": 2, "A": 1})


def test_a_record_gives_the_spec_that_it_was_made_of():
    whole = a_spec(gpus=[0, 1], args=["--temp 1.0", "-- x"], env={"B": 1, "A": "2"}, binds=["/data:/models"])
    assert spec.of_record(whole.as_dict()) == whole


def test_a_record_from_before_an_option_has_its_default():
    before = a_spec().as_dict()
    del before["drain_timeout"]
    assert spec.of_record(before) == a_spec(drain_timeout=60)
