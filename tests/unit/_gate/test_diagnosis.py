# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The causes of failed starts, from what the real programs wrote (failures.txt) and from what CUDA's sources say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate import causes, diagnosis
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gate.diagnosis import Host

HOST = Host(image="/home/op/x.sif", binds=("/data/models:/models:ro",))


def _recorded() -> dict[str, tuple[int, list[str]]]:
    found: dict[str, tuple[int, list[str]]] = {}
    for part in re.split(r"(?m)^=== ", (Path(__file__).parent / "failures.txt").read_text(encoding="utf-8"))[1:]:
        head, *lines = part.split("\n")
        name, status = head.split()
        found[name] = (int(status), lines)
    return found


RECORDED = _recorded()

EXPECTED = {
    "bind_missing": ("bind missing", "The folder /nope, which is bound into the container, is not there"),
    "bogus": ("option unknown", "does not know the argument --ctx-sise"),
    "ctk": ("value refused", "argument -ctk: Unsupported cache type: q9_0"),
    "ctv": ("V cache without flash attention", "A quantized V cache needs flash attention"),
    "dev": ("no such device", "llama-server sees no device CUDA0"),
    "draft": ("model missing", "There is no file /data/models/none.gguf"),
    "gguf_template": ("chat template", "in this image understands: Unknown statement: zzz. Correct"),
    "grammar": ("grammar", "cannot be parsed: expecting ')' at. Correct"),
    "lora": ("adapter", "cannot be loaded: failed to open '/models/none.gguf': No such file or directory"),
    "model_arch": (
        "architecture unknown",
        "The image is too old for the model: its llama-server does not know the arch",
    ),
    "model_empty": ("empty model", "its file is empty, or a folder"),
    "model_html": ("not a GGUF", "begins with <htm, where a GGUF begins with GGUF"),
    "model_missing": ("model missing", "There is no file /data/models/missing.gguf"),
    "model_nokey": ("tensor missing", "it lacks llama.block_count."),
    "model_pre": ("tokenizer unknown", "does not know the pre-tokenizer type zzollm."),
    "model_td": ("model truncated", "(blk.2.ffn_up.weight)"),
    "model_tensor": ("tensor missing", "it lacks blk.0.attn_q.weight."),
    "model_th": ("model truncated", "(key-value pairs)"),
    "model_ttype": ("model type too new", "of a kind (77)"),
    "model_v99": ("model too new", "of version 99, and the llama-server in this image reads up to 3"),
    "no_fuse": ("no fuse", "no working FUSE (device not found"),
    "no_userns": ("no user namespaces", "Failed to create user namespace: not allowed to create user namespace."),
    "port": ("port taken", "Address 127.0.0.1, port 18499 cannot be listened on"),
    "python_closed": (
        "runner cannot be started",
        "systemd cannot start /opt/llamacpp/venv/bin/python: Permission denied",
    ),
    "sif_damaged": ("input/output error", "A file could not be read"),
    "sif_missing": ("image missing", "The image /home/operator/missing.sif is not there"),
    "sif_no_server": ("no server in the image", "The image holds no /usr/bin/no-such."),
    "sif_random": ("not an image", "/home/operator/rnd.sif is not a SIF image"),
    "sif_truncated": ("image truncated", "The image /home/op/x.sif is broken"),
    "sif_unreadable": ("image not readable", "The image /home/operator/noperm.sif may not be read"),
    "split2": ("not the first part", "/data/models/s-00002-of-00003.gguf is not the first part"),
    "splitmissing": ("part missing", "cannot be loaded: /data/models/s-00002-of-00003.gguf."),
    "splitrenamed": ("part renamed", "/data/models/renamed.gguf is part of a split model"),
    "tmpl": ("chat template", "in this image understands"),
    "tmplfile": ("value refused", "argument --chat-template-file: error: failed to open file"),
    "ulim": ("host memory short", "how much is free is not known"),
}


def test_every_recorded_failure_is_expected_to_be_something() -> None:
    assert set(RECORDED) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_the_real_programs_wrote(name: str) -> None:
    status, lines = RECORDED[name]
    found = diagnosis.find(status, lines, HOST)
    assert found is not None
    assert found.name == EXPECTED[name][0]
    assert EXPECTED[name][1] in found.sentence
    text = diagnosis.explain("It ended", status, lines, HOST)
    assert text.startswith(f"It ended. {found.sentence} The log says:\n    ")
    assert not re.search(r"{\w+}|\(\)|\.\.[ \n]| ,|\x1b", found.sentence)


# Words of CUDA and of models that are not here: read in llama.cpp's sources, in build 11434.
@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        (
            "0.01.1 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.00 MiB on device 2: cudaMalloc "
            "failed: out of memory",
            "VRAM short",
            "GPU 5 (GPU-c) has not enough free memory: 20480.00 MiB were asked for in one piece, 700 MiB are free now.",
        ),
        (
            "E llama_model_load: error loading model: unable to allocate CUDA0 buffer",
            "VRAM short for the cache",
            "100 MiB",
        ),
        (
            "E failed to initialize the context: failed to allocate buffer for kv cache",
            "VRAM short for the cache",
            "free now are 100 MiB on GPU 1 (GPU-a), 9000 MiB on GPU 3 (GPU-b), 700 MiB on GPU 5 (GPU-c)",
        ),
        (
            "E llama_init_from_model: model does not support different K (q8_0) and V (f16) cache types",
            "K and V differ",
            "q8_0 and f16",
        ),
        (
            "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
            "no GPU in the container",
            "would run on the CPU: no CUDA-capable device is detected.",
        ),
        ("CUDA error: unspecified launch failure", "GPU lost", "A GPU failed while llama-server used it"),
        (
            "CUDA error: CUDA driver version is insufficient for CUDA runtime version",
            "driver does not fit",
            "driver do not fit",
        ),
        (
            "llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared object file",
            "library missing",
            "has no libcuda.so.1.",
        ),
        (
            "E gguf_init_from_file: failed to open GGUF file '/models/a.gguf' (Permission denied)",
            "model not readable",
            "/data/models/a.gguf cannot be opened by llama-server: Permission denied.",
        ),
        (
            "E llama_model_load: error loading model: corrupted model: 291 tensors expected but 200 found",
            "parts mixed",
            "(tensors expected 291, found 200)",
        ),
    ],
)
def test_what_the_sources_say(line: str, name: str, said: str) -> None:
    host = Host(binds=HOST.binds, gpus=("1 (GPU-a)", "3 (GPU-b)", "5 (GPU-c)"), gpu_free=(100, 9000, 700))
    found = diagnosis.find(1, ["0.00.1 I loading", line], host)
    assert found is not None
    assert (found.name, found.lines) == (name, (line,))
    assert said in found.sentence


def test_a_gpu_of_which_nothing_is_known() -> None:
    line = "allocating 1.00 MiB on device 3: cudaMalloc failed: out of memory"
    found = diagnosis.find(1, [line])
    assert found is not None
    assert found.sentence.startswith(
        "GPU CUDA3 of the instance has not enough free memory: 1.00 MiB were asked for in one piece, how much is free "
        "is not known."
    )


def test_the_cause_not_what_follows_from_it_nor_what_was_only_a_warning() -> None:
    lines = [
        "warning: no usable GPU found, --gpu-layers option will be ignored",
        "0.00.050.000 W common_fit_params: failed to fit params to free device memory",
        *RECORDED["splitmissing"][1],
    ]
    found = diagnosis.find(1, lines)
    assert found is not None
    assert found.name == "part missing"


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
def test_an_end_that_the_log_says_nothing_about(status: int, name: str) -> None:
    found = diagnosis.find(status, ["0.00.1 I srv load_model: loading model"])
    assert found is not None
    assert (found.name, found.lines) == (name, ())
    assert diagnosis.explain("It ended", status, []) == f"It ended. {found.sentence}"


def test_the_oom_killer_by_its_line_and_by_its_manager() -> None:
    line = "[123.4] Out of memory: Killed process 4711 (llama-server) total-vm:1kB"
    by_line = diagnosis.find(137, [], Host(kernel=("[1.0] usb", line), memory_free=12))
    assert by_line is not None
    assert (by_line.name, by_line.lines) == ("OOM killer", (line,))
    assert "12 MiB are free now" in by_line.sentence
    by_manager = diagnosis.find(None, ["0.00.1 I loading"], Host(result="oom-kill"))
    assert by_manager is not None
    assert "because memory was short on the host (says its manager)" in by_manager.sentence
    killed = diagnosis.find(137, [], Host(kernel=("[1.0] usb",)))
    assert killed is not None
    assert killed.name == "killed"


def test_somebody_elses_oom_is_not_ours() -> None:
    line = "Out of memory: Killed process 1 (firefox)"
    found = diagnosis.find(1, RECORDED["port"][1], Host(kernel=(line,)))
    assert found is not None
    assert found.name == "port taken"


def test_an_xid_in_the_kernels_log() -> None:
    line = "NVRM: Xid (PCI:0000:3b:00): 79, pid=4711, GPU has fallen off the bus."
    found = diagnosis.find(134, ["ggml abort"], Host(kernel=(line,)))
    assert found is not None
    assert (found.name, found.lines) == ("GPU lost", (line,))
    assert f"A GPU failed ({line.rstrip('.')}" in found.sentence
    # What the log says goes before what the kernel says of some GPU.
    other = diagnosis.find(1, RECORDED["model_missing"][1], Host(kernel=(line,)))
    assert other is not None
    assert other.name == "model missing"


def test_who_has_the_port() -> None:
    found = diagnosis.find(1, RECORDED["port"][1], Host(port_owner="python3 (pid 4711, user bob)"))
    assert found is not None
    assert "cannot be listened on: python3 (pid 4711, user bob) has it." in found.sentence


def test_not_recognised_is_said_and_shown() -> None:
    text = diagnosis.explain("It ended", 1, ["0.00.1 I fine", "0.00.000.002 E a thing that nobody has seen"])
    assert text == ("It ended. Its cause is not recognised here. The log says:\n    a thing that nobody has seen")
    assert diagnosis.explain("It ended", 1, []) == "It ended. Its log is empty."
    assert diagnosis.find(0, ["0.00.1 I fine"]) is None
    assert diagnosis.find(None, []) is None


def test_the_log_lines_are_shown_without_time_once_each_and_cut() -> None:
    text = diagnosis.explain("It ended", *RECORDED["model_missing"])
    assert text.count("failed to open GGUF file") == 1
    assert "\n    gguf_init_from_file: failed to open" in text
    assert len(diagnosis.explain("It ended", 1, ["error: invalid argument: " + "x" * 1000]).splitlines()[-1]) <= 304


@pytest.mark.parametrize(
    ("path", "binds", "expected"),
    [
        ("/models/a.gguf", ("/data/models:/models:ro",), "/data/models/a.gguf"),
        ("/models/x/a.gguf", ("/data:/models", "/other:/models/x"), "/other/a.gguf"),
        ("/models", ("/data/models:/models",), "/data/models"),
        ("/modelsx/a", ("/data/models:/models",), "/modelsx/a"),
        ("/data/a", ("/data",), "/data/a"),
        ("/a", (), "/a"),
    ],
)
def test_outside(path: str, binds: tuple[str, ...], expected: str) -> None:
    assert diagnosis.outside(path, binds) == expected


def test_every_cause_has_a_name_of_its_own_and_two_sentences() -> None:
    every = [*causes.CAUSES, *causes.STATUSES.values(), causes.OOM]
    assert len({cause.name for cause in every}) == len(every)
    for cause in every:
        assert cause.says.endswith(".")
        assert cause.remedy.endswith(".")
        places = set(re.findall(r"{(\w+)}", cause.says))
        assert places <= {*cause.pattern.groupindex, "image", "owner", "memory", "xid", "gpu", "free", "oom"}
        assert "{" not in cause.remedy
