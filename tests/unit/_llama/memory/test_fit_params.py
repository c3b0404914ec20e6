# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking the image's llama-fit-params: what it gets of the command line, and what its answers mean.

``env`` stands for the container and a script for the tool, so that the shell in between is the real one. The tables
and messages are those of llama.cpp b11669; what it printed with four RPC devices is there with CUDA's names. No GPU.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory import fit_params
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._llama.memory.fit_params import Device

MIB = 1 << 20
TABLE = "CUDA0 16 384 91 \nCUDA1 16 384 85 \nCUDA2 16 384 85 \nCUDA3 41 288 170 \nHost 28 0 75 \n"
IMAGE = "IMAGE=1"


def run(argv: Sequence[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


HELP = """----- common params -----

-h,    --help, --usage                  print usage; unlike llama-server it has no --port
-m,    --model FNAME                    model path
-t,    --threads N                      threads
-c,    --ctx-size N                     tokens
-ngl,  --gpu-layers, --n-gpu-layers N   layers
-fit,  --fit [on|off]                   make it fit
-ctk,  --cache-type-k TYPE              type of K
-ts,   --tensor-split N0,N1,N2,...      proportions
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        where tensors go; --host is another option
--temp, --temperature N                 temperature
--log-file FNAME                        log
-np,   --parallel N                     slots
-fitp, --fit-print [on|off]             print
"""


def tool(path: Path, script: str, help_text: str = HELP) -> None:
    """A tool that prints its help, or else runs the script."""
    (path.parent / "help").write_text(help_text)
    shown = f'case "$*" in *--help) cat {path.parent}/help; exit ;; esac'
    path.write_text(f"#!/bin/sh\n{shown}\n{script}\n")
    path.chmod(0o755)


def ask(folder: Path, *arguments: str, slots: int = 4) -> fit_params.DeviceTable:
    return fit_params.ask(["env", IMAGE], f"{folder}/llama-server", arguments, slots, run)


def test_the_table() -> None:
    assert fit_params.parse(f"noise\n{TABLE}") == (
        Device("CUDA0", 16 * MIB, 384 * MIB, 91 * MIB),
        Device("CUDA1", 16 * MIB, 384 * MIB, 85 * MIB),
        Device("CUDA2", 16 * MIB, 384 * MIB, 85 * MIB),
        Device("CUDA3", 41 * MIB, 288 * MIB, 170 * MIB),
        Device("Host", 28 * MIB, 0, 75 * MIB),
    )


def test_what_the_tool_gets_of_the_seeds_command_line(tmp_path: Path) -> None:
    tool(
        tmp_path / "llama-fit-params",
        f'printf "%s\\n" "$@" > {tmp_path}/got; ulimit -c > {tmp_path}/core; echo Host 1 2 3',
    )
    seed = "-m /models/a.gguf -ngl 99 -c 65536 --port 4403 --host 0.0.0.0 -t 32 --jinja --fit on --temp 1.0"
    answer = ask(tmp_path, *seed.split(), "--api-key-file", "/k", "--log_file", "/l", "-ctk", "q8_0", "-ts", "3,1")
    assert answer.devices == (Device("Host", MIB, 2 * MIB, 3 * MIB),)
    wanted = "-m /models/a.gguf -ngl 99 -c 65536 -t 32 --fit on --temp 1.0 -ctk q8_0 -ts 3,1 -np 4 -fitp on"
    assert (tmp_path / "got").read_text().split() == wanted.split()
    assert (tmp_path / "core").read_text() == "0\n"


def test_arguments_reach_the_tool_as_they_are(tmp_path: Path) -> None:
    tool(tmp_path / "llama-fit-params", f'printf "%s\\0" "$@" > {tmp_path}/got; echo Host 1 2 3')
    odd = ["-m", "/models/a b$(id)'\".gguf", "--temp", "-1", "-ot", "exps=CPU"]
    ask(tmp_path, *odd, "--chat-template-kwargs", '{"a": 1}', slots=2)
    assert (tmp_path / "got").read_text().split("\0")[:-1] == [*odd, "-np", "2", "-fitp", "on"]


def test_an_option_that_the_tool_does_not_list_is_left_out(tmp_path: Path) -> None:
    """Also where the help mentions it in a description."""
    tool(tmp_path / "llama-fit-params", f'printf "%s\\n" "$@" > {tmp_path}/got; echo Host 1 2 3')
    ask(tmp_path, "-m", "a", "--port", "1", "--new-one", "3", "4", "--host", "x", "-c", "5", "--new-two")
    assert (tmp_path / "got").read_text().split() == ["-m", "a", "-c", "5", "-np", "4", "-fitp", "on"]


def test_a_help_of_another_layout_leaves_the_command_line_whole(tmp_path: Path) -> None:
    tool(tmp_path / "llama-fit-params", 'echo "error: invalid argument: $3" >&2; exit 1', help_text="usage: -m\n")
    answer = ask(tmp_path, "-m", "a", "--new")
    assert answer.silent == "the image's llama-fit-params failed (exit status 1): error: invalid argument: --new"


def test_the_one_program_of_the_official_image(tmp_path: Path) -> None:
    tool(tmp_path / "llama", f'test "$1" = fit-params && test "$2" = -m || exit 1; echo "{TABLE}"')
    assert len(ask(tmp_path, "-m", "a").devices) == 5


def test_an_image_without_the_tool(tmp_path: Path) -> None:
    assert ask(tmp_path, "-m", "a").silent == "the image has no llama-fit-params"


def test_an_abort_in_the_tool(tmp_path: Path) -> None:
    tool(tmp_path / "llama-fit-params", 'echo "0.00 E gguf_init: it is broken" >&2; kill -ABRT $$')
    assert ask(tmp_path, "-m", "a").silent.endswith("0.00 E gguf_init: it is broken")


@pytest.mark.parametrize(
    "message",
    [
        "tensor 'token_embd.weight' data is not within the file bounds, model is corrupted or incomplete",
        "unknown model architecture: 'wxyza'",
    ],
)
def test_a_model_that_this_llama_cpp_cannot_load(message: str) -> None:
    said = f"0.00.263.795 E llama_model_load: error loading model: {message}\n0.00 E failed to load model\n"
    assert fit_params.read(134, "", said) == fit_params.DeviceTable(refused=message)


def test_a_gpu_that_hangs() -> None:
    assert "did not answer within 120 s" in fit_params.read(124, "", "").silent


def test_an_answer_of_another_form_is_none() -> None:
    assert fit_params.read(0, "-c 4096 -ngl 99\n", "").devices == ()
