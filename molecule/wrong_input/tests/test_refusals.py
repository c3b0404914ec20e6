# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input against an instance that runs: refused in a sentence with the value and the remedy, nothing touched."""

import json

import pytest

NAME = "4403-glm-4.7-flash-q4"
MODEL = "/data/models/SmolLM2-135M-Instruct.Q4_1.gguf"
IMAGE = "/home/operator/llamacpp/shared/llamacpp-cuda-complete-"
NOUGHT = "0" * 64
NEW = "/data/models/new.gguf"
WEB = "http://controller:8000/models"

# what is wrong; the options that are; what the message has to hold: the value, and what to do
INSTANCE = {
    "an image that is not there": (
        {"image": "/home/operator/no.sif"},
        ["/home/operator/no.sif", "Copy it to the host"],
    ),
    "an image that is no SIF": ({"image": "/data/models/page.gguf"}, ["/data/models/page.gguf", "SIF"]),
    "an image with another sha256": ({"image_sha256": NOUGHT}, [IMAGE, NOUGHT, "Bring the right image"]),
    "a model that is not there": ({"model": "/data/models/no.gguf"}, ["/data/models/no.gguf", "gguf_model"]),
    "a truncated model": ({"model": "/data/models/short.gguf"}, ["/data/models/short.gguf", "50000000"]),
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
    "a truncated file": ({"path": NEW, "src": "/data/models/short.gguf"}, ["short.gguf", "50000000"]),
    "a path that leaves its folder": ({"path": "/data/models/../x.gguf", "src": MODEL}, ["/data/models/../x.gguf"]),
}


# What check mode has to see too; a file that is not there is none of it, because an earlier task may bring that.
FORETOLD = [
    "a truncated model",
    "a port of the operator's own process",
    "an empty key file",
    "an unknown option",
    "a word that only the server knows",
    "an option that opens the host",
    "a build that the image has not",
]

# What is done, and told; which options say so, and what the warning has to hold.
TOLD = {
    "a context beyond the model's": (
        {"context_size": 16384},
        ["context_size: 16384 is more than the 8192 tokens that the model was trained with"],
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
def wrong_things(instance, module):
    """What the wrong input is about: files that are of no use, and neighbours on ports. Returns the right options."""
    instance.login.check_output(
        f"head -c 50000000 {MODEL} > /data/models/short.gguf;"
        " echo '<html>not found</html>' > /data/models/page.gguf;"
        " : > empty.keys; echo '# none yet' > notes.keys"
    )
    for user, port in (("operator", 4404), ("root", 4405)):
        instance.host.check_output(f"systemd-run -q --uid={user} --unit=port{port} python3 -m http.server {port}")
        instance.wait(lambda port=port: instance.host.run(f"ss -Hltn sport = :{port}").stdout != "", f"port {port}")
    right = instance.record()["spec"]
    neighbour = module("llamacpp_instance", **{**right, "name": "neighbour", "port": 4406, "state": "present"})
    assert neighbour["changed"], neighbour
    return right


@pytest.fixture(scope="module")
def answers(wrong_things, instance, tasks):
    """The answer to every wrong input, and the state of the host before and after all of them."""
    calls = {what: ("llamacpp_instance", {**wrong_things, **INSTANCE[what][0]}, False) for what in INSTANCE}
    calls.update({f"{what}, in check mode": (*calls[what][:2], True) for what in FORETOLD})
    calls.update({what: ("llamacpp_instance", {**wrong_things, **TOLD[what][0]}, True) for what in TOLD})
    calls.update({what: ("gguf_model", MODELS[what][0], False) for what in MODELS})
    before = (instance.pid(), instance.snapshot())
    given = dict(zip(calls, tasks(calls.values()), strict=True))
    return {**given, "before": before, "after": (instance.pid(), instance.snapshot())}


def complain(answer, words):
    """Refused in words that hold these, and by no accident."""
    said = answer.get("msg", "")
    assert answer.get("failed"), answer
    assert "Traceback (most" not in json.dumps(answer) and "module_stderr" not in answer, answer
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize("what", INSTANCE)
def test_an_instance_is_refused(answers, what):
    complain(answers[what], INSTANCE[what][1])


@pytest.mark.parametrize("what", FORETOLD)
def test_check_mode_refuses_the_same(answers, what):
    complain(answers[f"{what}, in check mode"], INSTANCE[what][1])


@pytest.mark.parametrize("what", TOLD)
def test_what_means_something_else_is_told(answers, what):
    said = " ".join(answers[what]["warnings"])
    assert not answers[what].get("failed") and answers[what]["changed"], answers[what]
    assert [word for word in TOLD[what][1] if word not in said] == [], said


@pytest.mark.parametrize("what", MODELS)
def test_a_model_is_refused(answers, what):
    complain(answers[what], MODELS[what][1])


def test_nothing_was_touched(answers, instance):
    assert answers["after"] == answers["before"]
    assert instance.health() == 200


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": NAME, "port": 4407}, f"2 instances have the name {NAME}."),
        ({"name": "other", "port": 4403}, f"{NAME} and other share the port 4403."),
    ],
    ids=["name", "port"],
)
def test_two_of_one_kind_are_refused(instance, deploy, second, words):
    model = {"path": MODEL}
    declared = [{"name": NAME, "port": 4403, "model": model}, {"model": model, **second}]
    before = (instance.pid(), instance.snapshot())

    refused = deploy("-e", json.dumps({"llamacpp_instances": declared}))

    assert (refused.changed, refused.failed) == (0, 1), refused.output
    assert words in refused.output
    assert "Traceback" not in refused.output
    assert (instance.pid(), instance.snapshot()) == before
