# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes in arguments, port, GPUs and memory: messages of llama-server (builds 10434, 11434 and 11669).

Private to gpufleet.llamacpp; may change at any time.

Messages about arguments, port, context and host memory were recorded from the real program. Those of CUDA come from its
sources, because no GPU was available to break.
"""

from __future__ import annotations

from .cause import COMMAND, cause

FREE_VRAM = (
    "Use more GPUs, a smaller context (context_size, or -ctk and -ctv q8_0), fewer gpu_layers, or end other programs "
    "on the GPU (gpu_info lists them)."
)

SERVER = (
    cause(
        "option unknown",
        r"error: invalid argument: (?P<option>.+)",
        text="The llama-server in this image does not know the argument {option}",
        remedy=f"Correct it in args, or remove it: {COMMAND}, and llama-server --help in the image lists all options.",
    ),
    cause(
        "no such device",
        r"invalid device: (?P<device>\S+)",
        text="llama-server does not find the device {device}: the container has no such GPU",
        remedy="Check that nvidia-smi works on the host, and set gpus, which makes the GPUs available in the container "
        "(--nv).",
    ),
    cause(
        "value refused",
        r"error while handling (?P<kind>argument|environment variable) \"(?P<option>[^\"]+)\": (?P<reason>.*)",
        text="llama-server rejects the value of the {kind} {option}",
        detail="{reason}",
        remedy="Correct it in args or env.",
    ),
    cause(
        "port taken",
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+?),? port: (?P<port>\d+)",
        text="llama-server cannot listen on port {port} of {host}",
        detail="{port_owner} uses it",
        remedy="End the program that listens there, or choose another port. Check that host is an address of this "
        "machine.",
    ),
    cause(
        "no SSL",
        r"built without SSL support",
        text="The llama-server in this image does not support HTTPS",
        remedy="Remove the SSL options, and terminate TLS in a proxy in front of the server.",
    ),
)

DEVICE = (
    cause(
        "GPU lost",
        r"GPU is lost|GPU has fallen off the bus|Unable to determine the device handle|device is lost|"
        r"unspecified launch failure|uncorrectable ECC error|CUDA error: an illegal memory access",
        text="A GPU failed while llama-server used it",
        detail="{xid}",
        remedy="Check nvidia-smi and the kernel log for Xid. A lost GPU needs a reset or a reboot.",
    ),
    cause(
        "VRAM short",
        r"allocating (?P<needed>[\d.]+) MiB on device (?P<device>\d+): cudaMalloc failed: out of memory",
        text="{gpu} does not have enough free memory for one allocation of {needed} MiB",
        detail="{gpu_free}",
        remedy=FREE_VRAM,
    ),
    cause(
        "VRAM short for the cache",
        r"failed to allocate buffer for kv cache|failed to allocate compute (?:pp |tg )?buffers|"
        r"unable to allocate (?P<device>CUDA\d+) buffer|CUDA error: out of memory|ErrorOutOfDeviceMemory",
        text="The GPUs do not have enough memory for the model and its context",
        detail="{gpu_free}",
        remedy=FREE_VRAM,
    ),
    cause(
        "host memory short",
        r"mmap failed: Cannot allocate memory|std::bad_alloc|failed to allocate (?:CPU|Host|CUDA_Host) buffer|"
        r"unable to allocate (?:CPU|CUDA_Host|Host)\S* buffer|(?:posix_memalign|hbw_posix_memalign|malloc).*failed",
        text="The host does not have enough memory for llama-server",
        detail="{memory_free} free now",
        remedy="Put more layers on the GPUs, use a smaller --cache-ram or context, or raise the limit (ulimit -v, the "
        "unit's MemoryMax).",
    ),
    cause(
        "driver does not fit",
        r"CUDA driver version is insufficient for CUDA runtime version|[Dd]river/library version mismatch|"
        r"no kernel image is available for execution|the provided PTX was compiled with an unsupported toolchain",
        text="The CUDA version of the image and the host's NVIDIA driver are not compatible",
        remedy="Update the driver (and reboot after an update), or use an image built for an older CUDA and for this "
        "GPU.",
    ),
)

CONTEXT = (
    cause(
        "K and V differ",
        r"does not support different K \((?P<k>\w+)\) and V \((?P<v>\w+)\) cache types",
        text="The K cache has type {k} and the V cache {v}, and this model needs the same type for both",
        remedy="Set --cache-type-k and --cache-type-v in args to the same type.",
    ),
    cause(
        "V cache without flash attention",
        r"V cache quantization requires flash_attn|quantized V cache (?:was requested|requires flash_attn)",
        text="A quantized V cache needs flash attention, which is off",
        remedy="Remove --flash-attn off from args, or set --cache-type-v f16.",
    ),
    cause(
        "chat template",
        r"common_chat_templates_init: error: (?P<reason>.*)|chat template parsing error|"
        r"the supplied chat template is not supported|failed to (?:initialize|apply|parse) (?:chat )?template",
        text="The llama-server in this image does not understand the chat template",
        detail="{reason}",
        remedy="Correct --chat-template or --chat-template-file. If it is the model's own template: use --jinja, a "
        "newer image, or the model as it is published today.",
    ),
    cause(
        "grammar",
        r"error parsing grammar: (?P<reason>.*)|failed to parse grammar",
        text="llama-server cannot parse the grammar in args",
        detail="{reason}",
        remedy="Correct --grammar, --grammar-file or --json-schema.",
    ),
    cause(
        "adapter",
        r"llama_adapter_lora_init: (?P<reason>.*)",
        r"failed to load lora adapter (?P<reason>'[^']+')",
        text="llama-server cannot load a LoRA adapter",
        detail="{reason}",
        remedy="Correct its path in args. Its folder must be in binds, and the adapter must be made for this model.",
    ),
    cause(
        "input/output error",
        r"(?P<reason>\S.*): input/output error",
        text="A file cannot be read, because the image or the storage under it is damaged",
        detail="{reason}",
        remedy="Check the kernel log. Then pull the image again, and set image_sha256.",
    ),
)

# A warning that also appears in the logs of servers that failed for another reason, so it is searched last.
WEAK = (
    cause(
        "no GPU in the container",
        r"ggml_cuda_init: failed to initialize CUDA: (?P<reason>.*)|no usable GPU found|"
        r"no CUDA-capable device is detected",
        text="The container has no GPU, so llama-server would run on the CPU",
        detail="{reason}",
        remedy="Check that nvidia-smi works on the host for the user that the server runs as, that gpus names the "
        "GPUs, and that the image is built for CUDA.",
    ),
)
