# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input against an instance that runs: refused in a sentence with the value and the remedy, nothing touched."""

import json

import pytest

NAME = "4403-glm-4.7-flash-q4"
MODEL = "/data/models/SmolLM2-135M-Instruct.Q4_1.gguf"
IMAGE = "/home/operator/llamacpp/shared/llamacpp-cuda-complete.sif"
NOUGHT = "0" * 64

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
    "an unknown option": ({"args": ["--temperatur 1.0"]}, ["'--temperatur'", "Did you mean --temperature?"]),
    "an option without its value": ({"args": ["--temp", "--jinja"]}, ["--jinja"]),
    "a value that the option refuses": ({"args": ["--temp warm"]}, ["--temp"]),
    "an option that has its own place": ({"args": ["--port 1"]}, ["--port", "say it there"]),
    "a key in the process list": ({"args": ["--api-key secret"]}, ["--api-key", "api_key_file"]),
    "a key file that is not there": ({"api_key_file": "/home/operator/no.keys"}, ["/home/operator/no.keys"]),
    "an empty key file": ({"api_key_file": "/home/operator/empty.keys"}, ["/home/operator/empty.keys", "without one"]),
    "a key file of comments": ({"api_key_file": "/home/operator/notes.keys"}, ["/home/operator/notes.keys"]),
    "a name that leaves the home": ({"name": "../4403"}, ["'../4403'", "folder's name"]),
    "a name that the home needs": ({"name": "shared"}, ["'shared'", "Choose another"]),
    "a bind that is not there": ({"binds": ["/data/no:/models"]}, ["/data/no", "Make it"]),
    "a context below nothing": ({"context_size": -1}, ["context_size: -1"]),
    "several at once": (
        {"port": 0, "threads": 0, "name": "a/b"},
        ["3 problems, nothing was changed", "port: 0", "threads: 0", "'a/b'"],
    ),
}
MODELS = {
    "another sha256": ({"path": MODEL, "sha256": NOUGHT}, [NOUGHT]),
    "another sha256 from an address": (
        {"path": "/data/models/new.gguf", "url": "http://controller:8000/models/SmolLM2-135M-Instruct.Q4_1.gguf"},
        [NOUGHT],
    ),
    "an address of nothing": (
        {"path": "/data/models/new.gguf", "url": "http://controller:8000/models/no.gguf"},
        ["http://controller:8000/models/no.gguf", "404"],
    ),
    "a truncated file": ({"path": "/data/models/new.gguf", "src": "/data/models/short.gguf"}, ["50000000"]),
    "a path that leaves its folder": ({"path": "/data/models/../x.gguf", "src": MODEL}, ["/data/models/../x.gguf"]),
}


@pytest.fixture(scope="module", autouse=True)
def wrong_things(instance, module):
    """What the wrong input is about: files that are of no use, and neighbours on ports."""
    instance.login.check_output(
        f"head -c 50000000 {MODEL} > /data/models/short.gguf;"
        " echo '<html>not found</html>' > /data/models/page.gguf;"
        " : > empty.keys; echo '# none yet' > notes.keys"
    )
    for user, port in (("operator", 4404), ("root", 4405)):
        instance.host.check_output(f"systemd-run -q --uid={user} --unit=port{port} python3 -m http.server {port}")
        instance.wait(lambda port=port: instance.host.run(f"ss -Hltn sport = :{port}").stdout != "", f"port {port}")
    spec = instance.record()["spec"]
    neighbour = module("llamacpp_instance", **{**spec, "name": "neighbour", "port": 4406, "state": "present"})
    assert neighbour["changed"], neighbour


@pytest.fixture(autouse=True)
def nothing_is_touched(instance, wrong_things):
    pid, before = instance.pid(), instance.snapshot()
    yield
    assert instance.pid() == pid
    assert instance.snapshot() == before
    assert instance.health() == 200


def is_a_sentence(answer, words):
    said = answer.get("msg", "")
    assert answer.get("failed"), answer
    assert "exception" not in answer and "Traceback" not in said and "module_stderr" not in answer, answer
    assert said.rstrip().endswith((".", "?")), said
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize("what", INSTANCE)
def test_an_instance_is_refused(instance, module, what):
    options, words = INSTANCE[what]

    is_a_sentence(module("llamacpp_instance", **{**instance.record()["spec"], **options}), words)


@pytest.mark.parametrize("what", ["a port of the operator's own process", "an unknown option"])
def test_check_mode_refuses_the_same(instance, module, what):
    options, words = INSTANCE[what]

    is_a_sentence(module("llamacpp_instance", "--check", **{**instance.record()["spec"], **options}), words)


@pytest.mark.parametrize("what", MODELS)
def test_a_model_is_refused(module, what):
    options, words = MODELS[what]

    is_a_sentence(module("gguf_model", **{"sha256": NOUGHT, **options}), words)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": NAME, "port": 4407}, f"2 instances have the name {NAME}."),
        ({"name": "other", "port": 4403}, f"{NAME} and other share the port 4403."),
    ],
)
def test_two_of_one_kind_are_refused(deploy, second, words):
    model = {"path": MODEL}
    declared = [{"name": NAME, "port": 4403, "model": model}, {"model": model, **second}]

    refused = deploy("-e", json.dumps({"llamacpp_instances": declared}))

    assert (refused.changed, refused.failed) == (0, 1), refused.output
    assert words in refused.output
    assert "Traceback" not in refused.output
