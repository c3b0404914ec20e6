# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The causes of failed starts, from logs of the real programs (failures.txt) and from messages in the sources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import causes, diagnosis
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.causes.cause import Cause, cause
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.diagnosis import Diagnosis, HostState

HOST = HostState(image="/home/op/x.sif", binds=("/data/models:/models:ro",))
EVERY = [*causes.CAUSES, *causes.STATUSES.values(), causes.OOM, causes.XID]
# The values that diagnosis.py takes from the host. Only the first two are always known.
ALWAYS_KNOWN = {"image", "gpu"}
HOST_VALUES = {*ALWAYS_KNOWN, "gpu_free", "memory_free", "port_owner", "xid"}


def _recorded() -> dict[str, tuple[int, list[str]]]:
    found: dict[str, tuple[int, list[str]]] = {}
    for part in re.split(r"(?m)^=== ", (Path(__file__).parent / "failures.txt").read_text(encoding="utf-8"))[1:]:
        head, *lines = part.split("\n")
        name, status = head.split()
        found[name] = (int(status), lines)
    return found


RECORDED = _recorded()

# Name of the cause, and a part of its problem.
EXPECTED = {
    "bind_missing": ("bind missing", "/nope is bound into the container and does not exist on the host."),
    "bogus": ("option unknown", "does not know the argument --ctx-sise."),
    "ctk": ("value refused", "the value of the argument -ctk: Unsupported cache type: q9_0."),
    "ctv": ("V cache without flash attention", "A quantized V cache needs flash attention"),
    "dev": ("no such device", "llama-server does not find the device CUDA0:"),
    "draft": ("model missing", "llama-server does not find the file /data/models/none.gguf."),
    "gguf_template": ("chat template", "does not understand the chat template: Unknown statement: zzz. Correct"),
    "grammar": ("grammar", "cannot parse the grammar in args: expecting ')' at. Correct"),
    "lora": ("adapter", "cannot load a LoRA adapter: failed to open '/models/none.gguf': No such file or directory."),
    "model_arch": (
        "architecture unknown",
        "its llama-server does not know the architecture ",
    ),
    "model_empty": ("empty model", "it is empty, or a folder."),
    "model_html": ("not a GGUF", "it starts with '<htm' instead of 'GGUF'."),
    "model_missing": ("model missing", "does not find the file /data/models/missing.gguf."),
    "model_nokey": ("tensor missing", "does not fit the llama-server in this image: it has no llama.block_count."),
    "model_pre": ("tokenizer unknown", "does not know the pre-tokenizer type zzollm."),
    "model_td": ("model truncated", "it ends before the end of blk.2.ffn_up.weight."),
    "model_tensor": ("tensor missing", "it has no blk.0.attn_q.weight."),
    "model_th": ("model truncated", "it ends before the end of key-value pairs."),
    "model_ttype": ("model type too new", "of the model has type 77, which"),
    "model_v99": ("model too new", "has GGUF version 99, and the llama-server in this image reads versions up to 3."),
    "no_fuse": ("no fuse", "FUSE does not work on this host: device not found"),
    "no_userns": ("no user namespaces", "Failed to create user namespace: not allowed to create user namespace."),
    "port": ("port taken", "llama-server cannot listen on port 18499 of 127.0.0.1."),
    "python_closed": (
        "runner cannot be started",
        "systemd cannot start /opt/llamacpp/venv/bin/python: Permission denied.",
    ),
    "sif_damaged": ("input/output error", "A file cannot be read"),
    "sif_missing": ("image missing", "The image /home/operator/missing.sif does not exist."),
    "sif_no_server": ("no server in the image", "The image does not contain /usr/bin/no-such."),
    "sif_random": ("not an image", "/home/operator/rnd.sif is not a SIF image"),
    "sif_truncated": ("image truncated", "The file system in the image /home/op/x.sif cannot be read"),
    "sif_unreadable": ("image not readable", "may not read the image /home/operator/noperm.sif."),
    "split2": ("not the first part", "/data/models/s-00002-of-00003.gguf is not the first part"),
    "splitmissing": ("part missing", "cannot load /data/models/s-00002-of-00003.gguf, a part"),
    "splitrenamed": ("part renamed", "/data/models/renamed.gguf is a part of a split model"),
    "tmpl": ("chat template", "does not understand the chat template"),
    "tmplfile": ("value refused", "argument --chat-template-file: error: failed to open file"),
    "ulim": ("host memory short", "The host does not have enough memory for llama-server."),
}


def found(exit_status: int | None, lines: list[str], host: HostState | None = None) -> Diagnosis:
    known = diagnosis.find(exit_status, lines, host)
    assert known is not None
    return known


def test_every_recorded_failure_has_an_expected_cause() -> None:
    assert set(RECORDED) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_failure(name: str) -> None:
    status, lines = RECORDED[name]
    known = found(status, lines, HOST)
    assert known.name == EXPECTED[name][0]
    assert EXPECTED[name][1] in str(known.problem)
    text = str(diagnosis.explain("It ended", status, lines, HOST))
    assert text.startswith(f"It ended. {known.problem} The log shows:\n    ")
    assert "\x1b" not in text


# Messages of CUDA and of models that are not available here, from the sources of build 11434.
@pytest.mark.parametrize(
    ("line", "name", "text"),
    [
        (
            "0.01.1 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.00 MiB on device 2: cudaMalloc "
            "failed: out of memory",
            "VRAM short",
            "GPU 5 (GPU-c) does not have enough free memory for one allocation of 20480.00 MiB: 700 MiB free on "
            "GPU 5 (GPU-c)",
        ),
        (
            "E llama_model_load: error loading model: unable to allocate CUDA0 buffer",
            "VRAM short for the cache",
            "enough memory for the model and its context: 100 MiB free on GPU 1 (GPU-a)",
        ),
        (
            "E failed to initialize the context: failed to allocate buffer for kv cache",
            "VRAM short for the cache",
            "100 MiB free on GPU 1 (GPU-a), 9000 MiB free on GPU 3 (GPU-b), 700 MiB free on GPU 5 (GPU-c)",
        ),
        (
            "E llama_init_from_model: model does not support different K (q8_0) and V (f16) cache types",
            "K and V differ",
            "type q8_0 and the V cache f16, and this model needs the same type for both",
        ),
        (
            "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
            "no GPU in the container",
            "would run on the CPU: no CUDA-capable device is detected",
        ),
        ("CUDA error: unspecified launch failure", "GPU lost", "A GPU failed while llama-server used it"),
        (
            "CUDA error: CUDA driver version is insufficient for CUDA runtime version",
            "driver does not fit",
            "and the host's NVIDIA driver are not compatible",
        ),
        (
            "llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared object file",
            "library missing",
            "the container has no libcuda.so.1",
        ),
        (
            "E gguf_init_from_file: failed to open GGUF file '/models/a.gguf' (Permission denied)",
            "model not readable",
            "llama-server cannot open /data/models/a.gguf: Permission denied",
        ),
        (
            "E llama_model_load: error loading model: corrupted model: 291 tensors expected but 200 found",
            "parts mixed",
            "do not belong together: they have 200 tensors, expected are 291",
        ),
    ],
)
def test_a_message_in_the_sources(line: str, name: str, text: str) -> None:
    host = HostState(binds=HOST.binds, gpus=("1 (GPU-a)", "3 (GPU-b)", "5 (GPU-c)"), gpu_free=(100, 9000, 700))
    known = found(1, ["0.00.1 I loading", line], host)
    assert (known.name, known.lines) == (name, (line,))
    assert known.problem.text.endswith(text)


def test_a_gpu_that_is_not_known() -> None:
    line = "allocating 1.00 MiB on device 3: cudaMalloc failed: out of memory"
    assert found(1, [line]).problem.text == "CUDA3 does not have enough free memory for one allocation of 1.00 MiB"


def test_the_cause_comes_before_its_consequences_and_before_warnings() -> None:
    lines = [
        "warning: no usable GPU found, --gpu-layers option will be ignored",
        "0.00.050.000 W common_fit_params: failed to fit params to free device memory",
        *RECORDED["splitmissing"][1],
    ]
    assert found(1, lines).name == "part missing"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (78, "configuration"),
        (132, "illegal instruction"),
        (134, "abort"),
        (135, "bus error"),
        (137, "killed"),
        (139, "crash"),
    ],
)
def test_an_exit_status_without_a_cause_in_the_log(status: int, name: str) -> None:
    known = found(status, ["0.00.1 I srv load_model: loading model"])
    assert (known.name, known.lines) == (name, ())
    assert str(diagnosis.explain("It ended", status, [])) == f"It ended. {known.problem}"


def test_the_oom_killer_in_the_kernels_log() -> None:
    line = "[123.4] Out of memory: Killed process 4711 (llama-server) total-vm:1kB"
    known = found(137, [], HostState(kernel=("[1.0] usb", line), memory_free=12))
    assert (known.name, known.lines) == ("OOM killer", (line,))
    assert known.problem.text.endswith(": 12 MiB free now")
    assert found(137, [], HostState(kernel=("[1.0] usb",))).name == "killed"


def test_the_oom_killer_as_the_manager_reports_it() -> None:
    assert found(None, ["0.00.1 I loading"], HostState(oom_killed=True)).name == "OOM killer"


def test_the_oom_killer_that_killed_another_program() -> None:
    line = "Out of memory: Killed process 1 (firefox)"
    assert found(1, RECORDED["port"][1], HostState(kernel=(line,))).name == "port taken"


def test_an_xid_in_the_kernels_log() -> None:
    line = "NVRM: Xid (PCI:0000:3b:00): 79, pid=4711, GPU has fallen off the bus."
    known = found(134, ["ggml abort"], HostState(kernel=(line,)))
    assert (known.name, known.lines) == ("GPU failed", (line,))
    assert known.problem.text == f"A GPU failed: {line}"
    # The log of the server comes before the kernel's log, which may be about another GPU.
    assert found(1, RECORDED["model_missing"][1], HostState(kernel=(line,))).name == "model missing"


def test_the_owner_of_the_port() -> None:
    known = found(1, RECORDED["port"][1], HostState(port_owner="python3 (pid 4711, user bob)"))
    assert known.problem.text.endswith(" 127.0.0.1: python3 (pid 4711, user bob) uses it")


def test_an_unknown_cause() -> None:
    text = str(diagnosis.explain("It ended", 1, ["0.00.1 I fine", "0.00.000.002 E an unknown error"]))
    assert text == "It ended. The cause is not a known one. The log shows:\n    an unknown error"
    text = str(diagnosis.explain("It ended", 1, ["", "one", "two"]))
    assert text == "It ended. The cause is not a known one. The log shows:\n    one\n    two"
    assert str(diagnosis.explain("It ended", 1, ["", " "])) == "It ended. The log is empty."
    assert diagnosis.find(0, ["0.00.1 I fine"]) is None
    assert diagnosis.find(None, []) is None


def test_log_lines_are_shown_without_time_once_and_cut() -> None:
    text = str(diagnosis.explain("It ended", *RECORDED["model_missing"]))
    assert text.count("failed to open GGUF file") == 1
    assert "\n    gguf_init_from_file: failed to open" in text
    text = str(diagnosis.explain("It ended", 1, ["error: invalid argument: " + "x" * 1000]))
    assert len(text.splitlines()[-1]) <= 304
    assert str(diagnosis.explain("It ended", 1, [f"line {n}" for n in range(9)])).count("\n") == 5


def test_a_detail_needs_all_of_its_values() -> None:
    one = cause("x", text="It failed", detail="{a} of {b}", remedy="Do it.")
    assert one.filled({"a": "1", "b": "2"}) == "It failed: 1 of 2"
    assert one.filled({"a": "1"}) == "It failed"


def test_every_cause_has_its_own_name() -> None:
    assert len({one.name for one in EVERY}) == len(EVERY)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_the_templates_of_a_cause(one: Cause) -> None:
    groups = [set(pattern.groupindex) for pattern in one.patterns]
    assert not one.text.endswith(".")
    assert not one.detail.endswith(".")
    assert one.remedy.endswith(".")
    assert "{" not in one.remedy
    assert values(one.text) <= ALWAYS_KNOWN | (set.intersection(*groups) if groups else set())
    assert values(one.detail) <= HOST_VALUES | set().union(*groups)


def values(template: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", template))
