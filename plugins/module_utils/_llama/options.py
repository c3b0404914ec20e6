# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of llama-server's options, known before an image is read. A variable is listed with its option.

Private to gpufleet.llamacpp; may change at any time. Names: llama.cpp common/arg.cpp, builds 10434 to 11669.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def _each(table: Mapping[str, T]) -> dict[str, T]:
    """One entry for each of the names that share a line."""
    return {name: value for names, value in table.items() for name in names.split()}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True)
class Unusable:
    """Why an option cannot be used with an instance (a phrase), and what to do instead (a sentence)."""

    why: str
    remedy: str


_DOWNLOADS = Unusable("an instance serves files of the host", "Fetch it with gguf_model, and name the file.")
_EXITS = Unusable("it prints and exits", "Remove it.")
UNUSABLE = _each(
    {
        "--api-key LLAMA_API_KEY": Unusable(
            "every user can see the key in the process list or in run.sh",
            "Write the key into a file and use api_key_file.",
        ),
        "-hft --hf-token HF_TOKEN": Unusable(
            "every user can see the token in the process list or in run.sh", "Fetch the model with gguf_model."
        ),
        "--embeddings --embedding --rerank --reranking LLAMA_ARG_EMBEDDINGS LLAMA_ARG_RERANKING": Unusable(
            "the gate needs a completion, and such a server gives none", "Remove it."
        ),
        "--api-prefix LLAMA_ARG_API_PREFIX": Unusable(
            "the health check and the gate use /health and /v1 at the root", "Put the prefix into the proxy in front."
        ),
        "--ssl-key-file --ssl-cert-file LLAMA_ARG_SSL_KEY_FILE LLAMA_ARG_SSL_CERT_FILE": Unusable(
            "the health check and the gate use plain HTTP", "Terminate TLS in a proxy in front of the server."
        ),
        "--models-dir --models-preset LLAMA_ARG_MODELS_DIR LLAMA_ARG_MODELS_PRESET": Unusable(
            "an instance serves one model", "Declare one instance for each model."
        ),
        "-hf -hfr --hf-repo -hff --hf-file LLAMA_ARG_HF_REPO LLAMA_ARG_HF_FILE": _DOWNLOADS,
        "-mu --model-url -dr --docker-repo LLAMA_ARG_MODEL_URL LLAMA_ARG_DOCKER_REPO": _DOWNLOADS,
        "-hfd -hfrd --hf-repo-draft --spec-draft-hf LLAMA_ARG_SPEC_DRAFT_HF_REPO": _DOWNLOADS,
        "-mmu --mmproj-url LLAMA_ARG_MMPROJ_URL": _DOWNLOADS,
        "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default": _DOWNLOADS,
        "--fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default": _DOWNLOADS,
        "--gpt-oss-120b-default --vision-gemma-4b-default --vision-gemma-12b-default": _DOWNLOADS,
        "-h --help --usage --version --list-devices -cl --cache-list --completion-bash": _EXITS,
        "CUDA_DEVICE_ORDER": Unusable("GPU numbers are always those of nvidia-smi", "Name the GPUs in gpus."),
        "CUDA_VISIBLE_DEVICES": Unusable("it would hide GPUs from the container", "Name the GPUs in gpus."),
    }
)

# Options that give API clients access beyond the model; each must be listed in allow_options, by its first name.
_OPENS = {
    "--tools LLAMA_ARG_TOOLS": "lets clients have the model run commands and write files",
    "--agent -ag LLAMA_ARG_AGENT": "lets clients have the model run commands and write files",
    "--mcp-servers-config LLAMA_ARG_MCP_SERVERS_CONFIG": "lets clients use the programs that it names",
    "--mcp-servers-json LLAMA_ARG_MCP_SERVERS_JSON": "lets clients use the programs that it names",
    "--ui-mcp-proxy --webui-mcp-proxy LLAMA_ARG_UI_MCP_PROXY": "lets clients reach the network from this host",
    "--rpc LLAMA_ARG_RPC": "gives memory and computation to servers without password and encryption",
    "--slot-save-path LLAMA_ARG_SLOT_SAVE_PATH": "lets clients write, read and delete files in its folder",
    "--media-path": "lets clients read the files in its folder",
    "--path LLAMA_ARG_STATIC_PATH": "serves the files in its folder to everyone, even where there are API keys",
    "--props LLAMA_ARG_ENDPOINT_PROPS": "lets clients change the server's settings for all others",
    "--log-prompts-dir": "writes every prompt into files",
}


@dataclass(frozen=True)
class Opening:
    """An option that must be allowed: the name to allow it by, and what it does."""

    name: str
    does: str


OPENS = {name: Opening(names.split()[0], does) for names, does in _OPENS.items() for name in names.split()}

# Options that newer builds no longer have, each with its replacement.
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

# Parsing alone makes --log-file truncate its file and --rpc connect to its servers.
SIDE_EFFECTS = ("--log-file", "--rpc")
# Given more than once, these add up. Of all others the last one counts.
LISTS = _words(
    """--lora --lora-scaled --control-vector --control-vector-scaled --override-kv --override-tensor --logit-bias
    --dry-sequence-breaker --spec-draft-override-tensor"""
)
# These take a number, auto or all.
LAYERS = _words("--gpu-layers --spec-draft-ngl --n-gpu-layers-draft")
# Values of a switch (is_truthy and is_falsey in llama.cpp).
ON = ("on", "enabled", "true", "1")
OFF = ("off", "disabled", "false", "0")
