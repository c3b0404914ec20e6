# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the image's own llama-fit-params says that a command line takes, on each device. It loads no weights.

Private to gpufleet.llamacpp; may change at any time. The tool: llama.cpp tools/fit-params.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..._host.runtime import Run
from ..argv import spelled
from .options import PARALLEL

MIB = 1 << 20
HOST = "Host"
# Seconds; a header takes one or two, a GPU that hangs for ever.
TIMEOUT = 120
# Finds the tool beside llama-server ($1), on the image's PATH, or in the one program of the official image. It aborts
# where it cannot read the model, and a core dump of a process with GPUs is large.
SCRIPT = (
    "ulimit -c 0; d=$1; shift; t=$(command -v llama-fit-params); "
    'for p in "$d/llama-fit-params" "$t"; do test -x "$p" && exec "$p" "$@"; done; '
    'test -x "$d/llama" && exec "$d/llama" fit-params "$@"; exit 127'
)
NOT_THERE = 127
OPTION = re.compile(r"--?[A-Za-z]")
INVALID = re.compile(r"invalid argument: (\S+)")
UNLOADABLE = re.compile(r"error loading model: (?:llama_model_loader: )?(.+)")
TELLING = re.compile(r"(?i) E |^error|^fatal|GGML_ASSERT")
LINE = re.compile(r"^(\S+) (\d+) (\d+) (\d+) *$", re.MULTILINE)

# Options of llama-server that are none of the tool's (llama.cpp b11434, common/arg.cpp: not LLAMA_EXAMPLE_COMMON).
# What a newer build adds to them is found by asking again without what it does not know.
SERVER_ONLY = """
    --lookup-cache-static -lcs --lookup-cache-dynamic -lcd --kv-unified-per-slot --ctx-checkpoints -ctxcp
    --swa-checkpoints --checkpoint-min-step -cms --cache-ram -cram --kv-unified -kvu -no-kvu --no-kv-unified
    --cache-idle-slots --no-cache-idle-slots --context-shift --no-context-shift --reverse-prompt -r --special -sp
    --warmup --no-warmup --spm-infill --pooling --cont-batching -cb -nocb --no-cont-batching --mmproj -mm
    --mmproj-url -mmu --mmproj-auto --no-mmproj --no-mmproj-auto --mmproj-offload --no-mmproj-offload
    --mmproj-device -mmdev --image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --video-fps
    --video-timestamp-interval --video-ffmpeg-dir --alias -a --tags --embd-normalize --host --port --reuse-port
    --path --cors-origins --cors-methods --cors-headers --cors-credentials --no-cors-credentials --api-prefix
    --ui-config --webui-config --ui-config-file --webui-config-file --ui-mcp-proxy --webui-mcp-proxy
    --no-ui-mcp-proxy --no-webui-mcp-proxy --tools --tools-runtime --mcp-servers-config --mcp-servers-json --agent
    -ag -no-ag --no-agent --ui --webui --no-ui --no-webui --embedding --embeddings --rerank --reranking --api-key
    --api-key-file --ssl-key-file --ssl-cert-file --chat-template-kwargs --timeout -to --sse-ping-interval
    --threads-http --cache-prompt --no-cache-prompt --cache-reuse --metrics --props --slots --no-slots
    --slot-save-path --media-path --models-dir --models-preset --models-max --models-autoload --no-models-autoload
    --jinja --no-jinja --reasoning-format --reasoning -rea --reasoning-effort --reasoning-budget
    --reasoning-budget-message --reasoning-preserve --no-reasoning-preserve --chat-template --chat-template-file
    --skip-chat-parsing --no-skip-chat-parsing --prefill-assistant --no-prefill-assistant --slot-prompt-similarity
    -sps --lora-init-without-apply --sleep-idle-seconds --log-prompts-dir --spec-draft-hf -hfd -hfrd --hf-repo-draft
    --spec-draft-threads -td --threads-draft --spec-draft-threads-batch -tbd --threads-batch-draft
    --spec-draft-cpu-mask -Cd --cpu-mask-draft --spec-draft-cpu-range -Crd --cpu-range-draft --spec-draft-cpu-strict
    --cpu-strict-draft --spec-draft-prio --prio-draft --spec-draft-poll --poll-draft --spec-draft-cpu-mask-batch
    -Cbd --cpu-mask-batch-draft --spec-draft-cpu-strict-batch --cpu-strict-batch-draft --spec-draft-prio-batch
    --prio-batch-draft --spec-draft-poll-batch --poll-batch-draft --spec-draft-override-tensor -otd
    --override-tensor-draft --spec-draft-cpu-moe -cmoed --cpu-moe-draft --spec-draft-n-cpu-moe --spec-draft-ncmoe
    -ncmoed --n-cpu-moe-draft --spec-draft-n-max --spec-draft-n-min --spec-synth-len --spec-synth-rates
    --spec-draft-p-split --draft-p-split --spec-draft-p-min --draft-p-min --spec-draft-backend-sampling
    --no-spec-draft-backend-sampling --spec-draft-sampling --spec-draft-device -devd --device-draft --spec-draft-ngl
    -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-model -md --model-draft --spec-type
    --spec-ngram-mod-n-min --spec-ngram-mod-n-max --spec-ngram-mod-n-match --spec-ngram-simple-size-n
    --spec-ngram-simple-size-m --spec-ngram-simple-min-hits --spec-ngram-map-k-size-n --spec-ngram-map-k-size-m
    --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m
    --spec-ngram-map-k4v-min-hits --draft --draft-n --draft-max --draft-min --draft-n-min --spec-ngram-size-n
    --spec-ngram-size-m --spec-ngram-min-hits --embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default
    --fim-qwen-7b-default --fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default
    --gpt-oss-120b-default --vision-gemma-4b-default --vision-gemma-12b-default --spec-default
"""
# Theirs too, and not wanted: --log-file truncates its file, the others are said anew.
DROPPED = frozenset((*SERVER_ONLY.split(), *PARALLEL, "--log-file", "-fitp", "--fit-print"))
ATTEMPTS = 8


@dataclass(frozen=True)
class Device:
    """Bytes on one device, by llama.cpp's name of it, such as CUDA0; the host's own memory is Host."""

    name: str
    model: int
    context: int
    compute: int


@dataclass(frozen=True)
class Answer:
    """Devices, or why there are none: ``refused`` where llama.cpp cannot load this model at all, else ``silent``."""

    devices: tuple[Device, ...] = ()
    refused: str = ""
    silent: str = ""


def ask(
    argv: Sequence[str], image: str, slots: int, run: Run, dropped: frozenset[str] = DROPPED, attempts: int = ATTEMPTS
) -> Answer:
    """The tool's answer for the launch's whole command line, run in the same container with the same GPUs.

    ``dropped`` are the options that it does not get; one that it does not know is dropped too, and it is asked again.
    """
    place = argv.index(image) + 1
    container, server, arguments = argv[:place], argv[place], argv[place + 1 :]
    # llama-server makes as many slots as it likes where none are named; the tool then makes one.
    words = [*without(arguments, dropped), "-np", str(slots), "-fitp", "on"]
    shell = ["/bin/sh", "-c", SCRIPT, "sh", os.path.dirname(server) or ".", *words]
    code, out, err = run(["timeout", "-k", "5", str(TIMEOUT), *container, *shell])
    unknown = INVALID.search(err)
    if unknown and spelled(unknown[1]) not in dropped and attempts > 1:
        return ask(argv, image, slots, run, dropped | {spelled(unknown[1])}, attempts - 1)
    return read(code, out, err)


def without(arguments: Sequence[str], dropped: frozenset[str]) -> list[str]:
    """The arguments without these options and what follows them up to the next option."""
    kept: list[str] = []
    keep = True
    for argument in arguments:
        if OPTION.match(argument):
            keep = spelled(argument) not in dropped
        if keep:
            kept.append(argument)
    return kept


def read(code: int, out: str, err: str) -> Answer:
    """What exit status, output and messages of the tool mean."""
    devices = parse(out)
    if code == 0 and any(device.name == HOST for device in devices):
        return Answer(devices=devices)
    if code == NOT_THERE:
        return Answer(silent="the image has no llama-fit-params")
    broken = UNLOADABLE.search(err)
    if broken:
        return Answer(refused=broken[1].strip())
    if code in (124, 137):
        return Answer(silent=f"the image's llama-fit-params did not answer within {TIMEOUT} s")
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    said = [line for line in lines if TELLING.search(line)] or lines[-1:]
    return Answer(silent=f"the image's llama-fit-params failed (exit status {code}): {'; '.join(said[:3])[:400]}")


def parse(out: str) -> tuple[Device, ...]:
    """The devices of the tool's table, which has MiB."""
    return tuple(Device(name, *(int(number) * MIB for number in numbers)) for name, *numbers in LINE.findall(out))
