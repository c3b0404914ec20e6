# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The launch: what of a spec reaches llama-server, in which order, and when a running server would be another one."""

from __future__ import annotations

import csv
import shlex
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._spec import launch
from ansible_collections.gpufleet.llamacpp.tests.unit._spec.sample import (
    IMAGE,
    MODEL,
    SERVER,
    a_launch,
    a_spec,
    found,
)

# The operator's page of notes on this instance, "Server Arguments", word for word.
DOCUMENTED = shlex.split(
    "-m /models/GLM-4.7-Flash-UD-Q4_K_XL.gguf -ngl 99 -c 65536 --port 4403 --host 0.0.0.0 -t 32 --jinja --fit on "
    "--temp 1.0 --top-p 0.95 --min-p 0.01 --repeat-penalty 1.0"
)


def test_the_documented_arguments_in_the_documented_order() -> None:
    assert launch.server_argv(a_spec(), SERVER) == [SERVER, *DOCUMENTED]


def test_the_whole_command() -> None:
    assert launch.container_argv(a_spec(), found()) == [
        "/usr/bin/apptainer",
        "exec",
        "--nv",
        "--no-eval",
        "--cleanenv",
        "--no-home",
        "--pwd",
        "/",
        "--bind",
        "/data/models:/models",
        "--env",
        "XDG_CONFIG_HOME=/nonexistent",
        "--env",
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
        "--env",
        "CUDA_VISIBLE_DEVICES=0,1,2,3",
        IMAGE,
    ]


def test_what_is_not_asked_for_is_not_said() -> None:
    quiet = a_spec(gpu_layers=None, context_size=None, threads=None, args=[], gpus=[])
    assert launch.server_argv(quiet, SERVER)[1:] == [*DOCUMENTED[:2], "--port", "4403", "--host", "0.0.0.0"]
    assert "--nv" not in launch.container_argv(quiet, found())
    assert launch.container_env(quiet) == {"XDG_CONFIG_HOME": "/nonexistent"}


def test_alias_and_key_file() -> None:
    argv = launch.server_argv(a_spec(alias="glm", api_key_file="/etc/keys"), SERVER)
    assert argv[argv.index("-t") + 2 : argv.index("--jinja")] == ["--alias", "glm"]
    assert argv[-2:] == ["--api-key-file", "/etc/keys"]


def test_zero_is_said() -> None:
    argv = launch.server_argv(a_spec(context_size=0, gpu_layers="0"), SERVER)
    assert (argv[argv.index("-c") + 1], argv[argv.index("-ngl") + 1]) == ("0", "0")


@pytest.mark.parametrize(
    ("path", "binds", "seen"),
    [
        ("/data/models/a.gguf", ["/data/models:/models"], "/models/a.gguf"),
        ("/data/models/a.gguf", ["/data/models/:/models/"], "/models/a.gguf"),
        ("/data/models/a.gguf", ["/data/models:/models:ro"], "/models/a.gguf"),
        ("/data/models/a.gguf", ["/data"], "/data/models/a.gguf"),
        ("/data/models/a.gguf", ["/:/host"], "/host/data/models/a.gguf"),
        ("/data/models/a.gguf", ["/data/models/a.gguf:/m.gguf"], "/m.gguf"),
        ("/data/models/sub/a.gguf", ["/data/models:/models"], "/models/sub/a.gguf"),
        ("/data/models2/a.gguf", ["/data/models:/models"], None),
        ("/data/models/a.gguf", [], None),
        ("/data/models/a.gguf", ["/data:/d", "/data/models:/models"], "/models/a.gguf"),
        ("/data/models/a.gguf", ["/data/models:/models", "/data:/d"], "/models/a.gguf"),
    ],
)
def test_inside(path: str, binds: list[str], seen: str | None) -> None:
    assert launch.inside(path, binds) == seen


@pytest.mark.parametrize(
    ("path", "binds", "file"),
    [
        ("/models/a.gguf", ["/data/models:/models"], "/data/models/a.gguf"),
        ("/models/a.gguf", ["/data/models/:/models/:ro"], "/data/models/a.gguf"),
        ("/data/a.gguf", ["/data"], "/data/a.gguf"),
        ("/models/side/p.gguf", ["/data/models:/models", "/other:/models/side"], "/other/p.gguf"),
        ("/models2/a.gguf", ["/data/models:/models"], "/models2/a.gguf"),
        ("/host/data/a.gguf", ["/:/host"], "/data/a.gguf"),
    ],
)
def test_outside(path: str, binds: list[str], file: str) -> None:
    assert launch.outside(path, binds) == file


def test_binds_are_added_only_for_what_is_not_covered() -> None:
    assert launch.all_binds(a_spec()) == ["/data/models:/models"]
    assert launch.all_binds(a_spec(binds=[])) == ["/data/models:/models:ro"]
    assert launch.all_binds(a_spec(binds=["/x:/x"], api_key_file="/etc/keys")) == [
        "/x:/x",
        "/data/models:/models:ro",
        "/etc/keys:/etc/keys:ro",
    ]
    assert launch.all_binds(a_spec(binds=["/data:/d"], api_key_file="/data/keys")) == ["/data:/d"]


def test_the_model_and_the_keys_are_named_as_the_container_sees_them() -> None:
    argv = launch.server_argv(a_spec(binds=["/data:/d"], api_key_file="/data/keys"), SERVER)
    assert argv[2] == MODEL.replace("/data", "/d")
    assert argv[-1] == "/d/keys"


def test_the_gpus_are_named_by_uuid_where_they_are_known() -> None:
    value = a_launch(found(gpus=("GPU-0a", "GPU-3b")))
    assert "CUDA_VISIBLE_DEVICES=GPU-0a,GPU-3b" in value.argv
    assert value.gpus == ("GPU-0a", "GPU-3b")
    # Another GPU behind the same index is another launch.
    assert value.id != a_launch(found(gpus=("GPU-0a", "GPU-9c"))).id
    unknown = a_launch()
    assert "CUDA_VISIBLE_DEVICES=0,1,2,3" in unknown.argv
    assert unknown.gpus is None


def test_the_environment() -> None:
    env = launch.container_env(a_spec(gpus=["2", "0"], env={"B": 1, "A": "x", "XDG_CONFIG_HOME": "/mine"}))
    assert env == {
        "XDG_CONFIG_HOME": "/mine",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "2,0",
        "A": "x",
        "B": "1",
    }


def understood(word: str) -> dict[str, str]:
    """What pflag makes of a value of a StringToString option (spf13/pflag, string_to_string.go)."""
    pairs = [word.strip('"')] if word.count("=") == 1 else next(csv.reader([word]))
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.mark.parametrize(
    "value", ["0,1,2,3", "", "a=b", "a=1,b=2", '"q"', 'x"', '"x=1"', "$(id)", "a b", '{"a": "b,c=d"}']
)
def test_a_variable_reaches_the_container_as_it_is(value: str) -> None:
    assert understood(launch.env_word("A", value)) == {"A": value}


def test_a_plain_variable_is_said_plainly() -> None:
    assert launch.env_word("CUDA_VISIBLE_DEVICES", "0,1") == "CUDA_VISIBLE_DEVICES=0,1"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:4403"),
        ("127.0.0.1", "http://127.0.0.1:4403"),
        ("10.1.2.3", "http://10.1.2.3:4403"),
        ("gpu1.example.org", "http://gpu1.example.org:4403"),
        ("::", "http://[::1]:4403"),
        ("[::]", "http://[::1]:4403"),
        ("fd00::1", "http://[fd00::1]:4403"),
        ("[fd00::1]", "http://[fd00::1]:4403"),
    ],
)
def test_where_the_host_itself_reaches_it(host: str, url: str) -> None:
    assert launch.probe_url(a_spec(host=host)) == url


CHANGES: list[dict[str, Any]] = [
    {"image": "shared/other.sif"},
    {"model": "/data/models/other.gguf"},
    {"alias": "glm"},
    {"host": "127.0.0.1"},
    {"port": 4404},
    {"gpus": ["1", "0", "2", "3"]},
    {"gpu_layers": "98"},
    {"context_size": 32768},
    {"context_size": None},
    {"threads": 16},
    {"args": []},
    {"env": {"A": "1"}},
    {"binds": ["/data/models:/models:ro"]},
    {"api_key_file": "/etc/keys"},
    {"server_path": "/usr/bin/llama-server"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_launch_is_another_one_when_the_server_would_be(changes: dict[str, Any]) -> None:
    assert a_launch(**changes).id != a_launch().id


@pytest.mark.parametrize(
    "other", [{"image_sha256": "3" * 64}, {"model_sha256": "3" * 64}, {"user": "x"}, {"user_home": "/x"}], ids=str
)
def test_a_launch_is_another_one_when_its_files_or_its_user_are(other: dict[str, Any]) -> None:
    assert a_launch(found(**other)).id != a_launch().id


@pytest.mark.parametrize("changes", [{"manager": "supervisor"}, {"wait_timeout": 5}, {"pull": "always"}], ids=str)
def test_a_launch_is_the_same_when_the_server_would_not_notice(changes: dict[str, Any]) -> None:
    assert a_launch(**changes).id == a_launch().id


def test_where_the_log_goes_and_how_it_is_stopped_is_not_part_of_the_launch() -> None:
    before = a_launch().id
    other = launch.build(a_spec(drain_timeout=5), found(), state_file="/elsewhere", log="/x.log")
    assert (other.drain_timeout, other.state_file, other.log) == (5, "/elsewhere", "/x.log")
    assert other.id == before


def test_the_operators_server_path_wins() -> None:
    argv = a_launch(server_path="/my/llama-server").argv
    assert argv[argv.index(IMAGE) + 1] == "/my/llama-server"


def test_a_launch_can_be_foreseen_where_nothing_is_there_yet() -> None:
    nothing = found(runtime=None, server_path=None, image_sha256=None, model_sha256=None)
    argv = a_launch(nothing).argv
    assert (argv[0], argv[argv.index(IMAGE) + 1]) == ("apptainer", "llama-server")


def test_the_files_that_the_server_reads_as_the_host_calls_them() -> None:
    files = a_launch(
        model="/data/models/x-00002-of-00002.gguf",
        api_key_file="/h/keys",
        binds=["/data/models:/models"],
        args=["--chat-template-file /models/glm.jinja", "--temp 1.0", "--log-file /models/written.log"],
    ).files
    assert list(files) == [
        IMAGE,
        "/data/models/x-00001-of-00002.gguf",
        "/data/models/x-00002-of-00002.gguf",
        "/h/keys",
        "/data/models/glm.jinja",
    ]
    assert list(a_launch(model="/data/models/x-00003-of-00002.gguf").files) == [
        IMAGE,
        "/data/models/x-00003-of-00002.gguf",
    ]
