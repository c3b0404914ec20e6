# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of llama-server's options before any image is asked: tables, and no logic. Variables stand beside them.

Private to gpufleet.llamacpp; may change at any time. Names: llama.cpp common/arg.cpp, builds 10434 to 11669.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def _each(table: Mapping[str, str]) -> dict[str, str]:
    """One entry for each of the names that share a line."""
    return {name: what for names, what in table.items() for name in names.split()}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DOWNLOADS = "an instance serves files of the host; bring them with gguf_model, and name the model in model"
_EXITS = "it prints and exits"
# What would keep llama-server from being what an instance is, each with what to do instead.
UNUSABLE = _each(
    {
        "--api-key LLAMA_API_KEY": "it shows the key to every user in the process list or in run.sh; put it into a "
        "file and use api_key_file",
        "-hft --hf-token HF_TOKEN": "it shows the token to every user in the process list or in run.sh; gguf_model "
        "brings the model",
        "--embeddings --embedding --rerank --reranking LLAMA_ARG_EMBEDDINGS LLAMA_ARG_RERANKING": "the proof of an "
        "instance is a completion, which such a server does not give",
        "--api-prefix LLAMA_ARG_API_PREFIX": "the probes expect /health and /v1 at the root; put the prefix into the "
        "proxy in front",
        "--ssl-key-file --ssl-cert-file LLAMA_ARG_SSL_KEY_FILE LLAMA_ARG_SSL_CERT_FILE": "the probes speak plain HTTP; "
        "end TLS in a proxy in front",
        "--models-dir --models-preset LLAMA_ARG_MODELS_DIR LLAMA_ARG_MODELS_PRESET": "an instance serves one model; "
        "declare one instance for each",
        "-hf -hfr --hf-repo -hff --hf-file LLAMA_ARG_HF_REPO LLAMA_ARG_HF_FILE": _DOWNLOADS,
        "-mu --model-url -dr --docker-repo LLAMA_ARG_MODEL_URL LLAMA_ARG_DOCKER_REPO": _DOWNLOADS,
        "-hfd -hfrd --hf-repo-draft --spec-draft-hf LLAMA_ARG_SPEC_DRAFT_HF_REPO": _DOWNLOADS,
        "-mmu --mmproj-url LLAMA_ARG_MMPROJ_URL": _DOWNLOADS,
        "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default": _DOWNLOADS,
        "--fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default": _DOWNLOADS,
        "--gpt-oss-120b-default --vision-gemma-4b-default --vision-gemma-12b-default": _DOWNLOADS,
        "-h --help --usage --version --list-devices -cl --cache-list --completion-bash": _EXITS,
        "CUDA_DEVICE_ORDER": "GPU numbers are always those of nvidia-smi; name the GPUs in gpus",
        "CUDA_VISIBLE_DEVICES": "the container would not see the GPUs; name them in gpus",
    }
)

# What gives whoever can send a request more than the model: only where the operator allows it by its first name.
_OPENS = {
    "--tools LLAMA_ARG_TOOLS": "lets callers have the model run commands and write files",
    "--agent -ag LLAMA_ARG_AGENT": "lets callers have the model run commands and write files",
    "--mcp-servers-config LLAMA_ARG_MCP_SERVERS_CONFIG": "lets callers use the programs that it names",
    "--mcp-servers-json LLAMA_ARG_MCP_SERVERS_JSON": "lets callers use the programs that it names",
    "--ui-mcp-proxy --webui-mcp-proxy LLAMA_ARG_UI_MCP_PROXY": "lets callers reach the network from this host",
    "--rpc LLAMA_ARG_RPC": "hands memory and computing to servers that ask for no password and encrypt nothing",
    "--slot-save-path LLAMA_ARG_SLOT_SAVE_PATH": "lets callers write, read and remove files in its folder",
    "--media-path": "lets callers read the files in its folder",
    "--path LLAMA_ARG_STATIC_PATH": "shows the files in its folder to everybody, also where there are keys",
    "--props LLAMA_ARG_ENDPOINT_PROPS": "lets callers change the server's settings for all others",
    "--log-prompts-dir": "writes down what every caller asks",
}


@dataclass(frozen=True)
class Opening:
    """An option that opens the host to callers: the name by which it is allowed, and what it does."""

    name: str
    does: str


OPENS = {name: Opening(names.split()[0], does) for names, does in _OPENS.items() for name in names.split()}

# What newer builds know no more, each with what they have instead.
REPLACED = _each(
    {
        "--mlock LLAMA_ARG_MLOCK": "--load-mode mlock",
        "--mmap LLAMA_ARG_MMAP": "--load-mode mmap",
        "--no-mmap LLAMA_ARG_NO_MMAP": "--load-mode none",
        "-dio --direct-io LLAMA_ARG_DIO": "--load-mode dio",
        "-ndio --no-direct-io LLAMA_ARG_NO_DIO": "--load-mode auto",
        "--slots-endpoint-disable LLAMA_ARG_NO_ENDPOINT_SLOTS": "--no-slots",
    }
)

# Already by being parsed, --log-file truncates its file and --rpc connects to its servers.
SIDE_EFFECTS = ("--log-file", "--rpc")
# Said more than once, these add up; of all others the last one counts.
LISTS = _words(
    """--lora --lora-scaled --control-vector --control-vector-scaled --override-kv --override-tensor --logit-bias
    --dry-sequence-breaker --spec-draft-override-tensor"""
)
# A number, or one of two words.
LAYERS = _words("--gpu-layers --spec-draft-ngl --n-gpu-layers-draft")
# What llama-server takes for a switch (is_truthy and is_falsey).
ON = ("on", "enabled", "true", "1")
OFF = ("off", "disabled", "false", "0")
