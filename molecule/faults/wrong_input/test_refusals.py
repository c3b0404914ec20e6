# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input for an instance that runs: refused with the value and the remedy, and nothing is changed."""

import json

import pytest

NAME = "4403-glm-4.7-flash-q4"
MODEL = "/data/models/SmolLM2-tiny.gguf"
IMAGE = "/home/operator/llamacpp/shared/llamacpp-cuda-complete-"
NOUGHT = "0" * 64
NEW = "/data/models/new.gguf"
WEB = "http://controller:8000/models"

# By what is wrong: the wrong options, and what the message contains: the value and the remedy.
INSTANCE = {
    "an image that is not there": (
        {"image": "/home/operator/no.sif"},
        ["/home/operator/no.sif", "Copy it to the host"],
    ),
    "an image that is no SIF": ({"image": "/data/models/page.gguf"}, ["/data/models/page.gguf", "SIF"]),
    "an image with another sha256": ({"image_sha256": NOUGHT}, [IMAGE, NOUGHT, "Bring the right image"]),
    "a model that is not there": ({"model": "/data/models/no.gguf"}, ["/data/models/no.gguf", "gguf_model"]),
    "a truncated model": ({"model": "/data/models/short.gguf"}, ["/data/models/short.gguf", "3000000"]),
    "a model that is a web page": ({"model": "/data/models/page.gguf"}, ["/data/models/page.gguf", "GGUF"]),
    "a model path that leaves its folder": ({"model": "/data/models/../x.gguf"}, ["/data/models/../x.gguf", "'..'"]),
    "port 0": ({"port": 0}, ["port: 0", "1 to 65535"]),
    "port 70000": ({"port": 70000}, ["port: 70000", "1 to 65535"]),
    "a port of the operator's own process": (
        {"port": 4404},
        ["port: 4404", "of user operator", "http.server 4404", "choose another port"],
    ),
    "a port of somebody else's process": ({"port": 4405}, ["port: 4405", "of user root", "choose another port"]),
    "a port of another instance": ({"port": 4406}, ["port: 4406", "the instance neighbour", "Choose another"]),
    "a port that needs root": ({"port": 443}, ["port: 443", "1024 and above"]),
    "an address of another host": ({"host": "192.0.2.1"}, ["host: ", "192.0.2.1", "0.0.0.0 for all"]),
    "an unknown option": ({"args": ["--temperatur 1.0"]}, ["--temperatur.", "Did you mean --temperature?"]),
    "an unknown option of ours": (
        {"args": ["--ctx-sise 4096"]},
        ["--ctx-sise", "Did you mean --ctx-size?", "the option context_size"],
    ),
    "an option that is gone": ({"args": ["--no-mmap"]}, ["--no-mmap was removed", "'--load-mode none'"]),
    "a long dash": ({"args": ["\u2014temp 1.0"]}, ["long dash", "Write '--temp 1.0'"]),
    "an option without its value": ({"args": ["--temp", "--jinja"]}, ["--temp needs a value", "--jinja follows"]),
    "a value for a flag": ({"args": ["--jinja true"]}, ["'true'", "--jinja takes no value"]),
    "a value that the option refuses": ({"args": ["--temp warm"]}, ["--temp 'warm'", "a number such as"]),
    "a number with a letter": ({"args": ["--top-k 40x"]}, ["--top-k '40x'", "a whole number"]),
    "a word that is none of the few": ({"args": ["--split-mode rows"]}, ["'rows'", "one of none, layer, row"]),
    "a word that only the server knows": ({"args": ["--load-mode fast"]}, ["'--load-mode fast'", "mmap+mlock"]),
    "a file that is not in the container": (
        {"args": ["--chat-template-file /home/operator/x.jinja"]},
        ["/home/operator/x.jinja", "inside the container"],
    ),
    "an option that opens the host": ({"args": ["--tools all"]}, ["--tools lets clients", "into allow_options"]),
    "a variable that opens the host": ({"env": {"LLAMA_ARG_TOOLS": "all"}}, ["LLAMA_ARG_TOOLS", "into allow_options"]),
    "an unknown variable": ({"env": {"LLAMA_ARG_TOP_KK": "1"}}, ["LLAMA_ARG_TOP_KK", "Did you mean LLAMA_ARG_TOP_K?"]),
    "a variable that a flag ignores": (
        {"env": {"LLAMA_ARG_ENDPOINT_METRICS": "TRUE"}},
        ["LLAMA_ARG_ENDPOINT_METRICS=TRUE", "lower case"],
    ),
    "a build that the image has not": (
        {"min_build": 999999, "context_size": 4096},
        [IMAGE, "min_build:", "999999 or later", "newer image"],
    ),
    "a server that is not in the image": ({"server_path": "/opt/llama-server"}, ["/opt/llama-server", IMAGE]),
    "arguments and variables at once": (
        {"args": ["--temperatur 1", "--top-k 4x", "--load-mode fast", "-ctk q9"], "env": {"LLAMA_ARG_X": "1"}},
        ["5 problems", "--temperatur.", "'4x'", "'--load-mode fast'", "'q9'", "LLAMA_ARG_X"],
    ),
    "an option that has its own place": ({"args": ["--port 1"]}, ["--port", "Set it there"]),
    "a key in the process list": ({"args": ["--api-key secret"]}, ["--api-key", "api_key_file"]),
    "a key file that is not there": ({"api_key_file": "/home/operator/no.keys"}, ["/home/operator/no.keys"]),
    "an empty key file": ({"api_key_file": "/home/operator/empty.keys"}, ["/empty.keys", "accept every request"]),
    "a key file of comments": ({"api_key_file": "/home/operator/notes.keys"}, ["/home/operator/notes.keys"]),
    "a name that leaves the home": ({"name": "../4403"}, ["'../4403'", "folder's name"]),
    "a name that the home needs": ({"name": "shared"}, ["'shared'", "Choose another"]),
    "a bind that is not there": ({"binds": ["/data/no:/models"]}, ["/data/no", "Create it"]),
    "a context below nothing": ({"context_size": -1}, ["context_size: -1"]),
    "several at once": (
        {"port": 0, "threads": 0, "name": "a/b"},
        ["3 problems, nothing was changed", "port: 0", "threads: 0", "'a/b'"],
    ),
}
MODELS = {
    "another sha256": ({"path": MODEL, "sha256": NOUGHT}, [NOUGHT]),
    "another sha256 from an address": ({"path": NEW, "url": f"{WEB}/{MODEL[13:]}", "sha256": NOUGHT}, [NOUGHT, NEW]),
    "an address of nothing": ({"path": NEW, "url": f"{WEB}/no.gguf", "sha256": NOUGHT}, [f"{WEB}/no.gguf", "404"]),
    "a truncated file": ({"path": NEW, "src": "/data/models/short.gguf"}, ["short.gguf", "3000000"]),
    "a path that leaves its folder": ({"path": "/data/models/../x.gguf", "src": MODEL}, ["/data/models/../x.gguf"]),
}


# Check mode refuses these too. It accepts a file that does not exist, because an earlier task may fetch it.
IN_CHECK_MODE = [
    "a truncated model",
    "a port of the operator's own process",
    "an empty key file",
    "an unknown option",
    "a word that only the server knows",
    "an option that opens the host",
    "a build that the image has not",
]

# By what is done with a warning: the options, and what the warning contains.
WARNED = {
    "a context beyond the model's": (
        {"context_size": 262144},
        ["context_size: 262144 is more than the 131072 tokens that the model was trained with"],
    ),
    "slots that divide the context": (
        {"args": ["--parallel 4"]},
        ["4 slots divide the context", "Add --kv-unified"],
    ),
    "an option said twice": ({"args": ["--top-k 4", "--top_k 5"]}, ["'--top-k 4' and '--top_k 5' set the same option"]),
    "a variable without effect": (
        {"args": ["--top-k 4"], "env": {"LLAMA_ARG_TOP_K": "5"}},
        ["LLAMA_ARG_TOP_K=5 has no effect, because --top-k 4"],
    ),
    "a server for everybody": ({"host": "0.0.0.0", "context_size": 4096}, ["host: 0.0.0.0 without api_key_file"]),
    "a fit that fits nothing": ({"gpu_layers": "99", "args": ["--fit on"]}, ["--fit on only warns"]),
}


@pytest.fixture(scope="module")
def right(instance, direct):
    """Options of the instance without a mistake. Meanwhile the host has unusable files, and neighbours on ports."""
    instance.login.check_output(
        f"head -c 3000000 {MODEL} > /data/models/short.gguf;"
        " echo '<html>not found</html>' > /data/models/page.gguf;"
        " : > empty.keys; echo '# none yet' > notes.keys"
    )
    for user, port in (("operator", 4404), ("root", 4405)):
        instance.host.check_output(f"systemd-run -q --uid={user} --unit=port{port} python3 -m http.server {port}")
        instance.wait(lambda port=port: instance.host.run(f"ss -Hltn sport = :{port}").stdout != "", f"port {port}")
    options = {name: value for name, value in instance.record()["spec"].items() if value is not None}
    neighbour = direct.run("llamacpp_instance", **{**options, "name": "neighbour", "port": 4406, "state": "present"})
    assert neighbour["changed"], neighbour
    yield options
    assert direct.run("llamacpp_instance", name="neighbour", state="absent")["changed"]
    instance.host.check_output("systemctl stop port4404 port4405")
    instance.login.check_output("rm /data/models/short.gguf /data/models/page.gguf empty.keys notes.keys")


@pytest.fixture(scope="module")
def results(right, instance, direct):
    """The result of every wrong input, and the state of the host before and after all of them."""
    calls = {what: ("llamacpp_instance", False, {**right, **INSTANCE[what][0]}) for what in INSTANCE}
    calls.update({f"{what}, in check mode": ("llamacpp_instance", True, calls[what][2]) for what in IN_CHECK_MODE})
    calls.update({what: ("llamacpp_instance", True, {**right, **WARNED[what][0]}) for what in WARNED})
    calls.update({what: ("gguf_model", False, MODELS[what][0]) for what in MODELS})
    before = (instance.pid(), instance.snapshot())
    given = {what: direct.run(name, check, **options) for what, (name, check, options) in calls.items()}
    return {**given, "before": before, "after": (instance.pid(), instance.snapshot())}


def assert_refused(result, words):
    """The module failed with a message that contains these words, and not by an exception."""
    message = result.get("msg", "")
    assert result.get("failed"), result
    assert "Traceback (most" not in json.dumps(result) and "module_stderr" not in result, result
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("what", INSTANCE)
def test_an_instance_is_refused(results, what):
    assert_refused(results[what], INSTANCE[what][1])


@pytest.mark.parametrize("what", IN_CHECK_MODE)
def test_check_mode_refuses_the_same(results, what):
    assert_refused(results[f"{what}, in check mode"], INSTANCE[what][1])


@pytest.mark.parametrize("what", WARNED)
def test_an_option_with_an_unexpected_effect_gives_a_warning(results, what):
    warnings = " ".join(results[what]["warnings"])
    assert not results[what].get("failed") and results[what]["changed"], results[what]
    assert [word for word in WARNED[what][1] if word not in warnings] == [], warnings


@pytest.mark.parametrize("what", MODELS)
def test_a_model_is_refused(results, what):
    assert_refused(results[what], MODELS[what][1])


def test_nothing_was_changed(results, instance):
    assert results["after"] == results["before"]
    assert instance.health() == 200


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": NAME, "port": 4407}, f"2 instances have the name {NAME}."),
        ({"name": "other", "port": 4403}, f"{NAME} and other share the port 4403."),
    ],
    ids=["name", "port"],
)
def test_two_instances_with_the_same_name_or_port_are_refused(instance, deploy, second, words):
    model = {"path": MODEL}
    declared = [{"name": NAME, "port": 4403, "model": model}, {"model": model, **second}]
    before = (instance.pid(), instance.snapshot())

    refused = deploy("-e", json.dumps({"llamacpp_instances": declared}))

    assert (refused.changed, refused.failed) == (0, 1), refused.output
    assert words in refused.output
    assert "Traceback" not in refused.output
    assert (instance.pid(), instance.snapshot()) == before
