# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why llama-server does not start though container and model are sound: arguments, port, memory, GPUs. Data.

Private to gpufleet.llamacpp; may change at any time.

The words are those of builds 10434, 11434 and 11669. Those about arguments, port, context and host memory were brought
about with the real program; those of CUDA were read in its sources, there being no GPU to break.
"""

from __future__ import annotations

from .cause import cause

SERVER = (
    cause(
        "option unknown",
        r"error: invalid argument: (?P<option>.+)",
        "The llama-server in this image does not know the argument {option}.",
        "Take it out of args or correct it: run.sh shows the command, and the image's llama-server --help all options.",
    ),
    cause(
        "no such device",
        r"invalid device: (?P<device>\S+)",
        "llama-server sees no device {device}, so the container has no such GPU.",
        "See that nvidia-smi works on the host, and name the GPUs in gpus, so that the container gets them (--nv).",
    ),
    cause(
        "value refused",
        r"error while handling (?P<what>argument|environment variable) \"(?P<option>[^\"]+)\": (?P<said>.*)",
        "llama-server does not take the value of {what} {option}: {said}.",
        "Correct it in args or env.",
    ),
    cause(
        "port taken",
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+?),? port: (?P<port>\d+)",
        "Address {host}, port {port} cannot be listened on: {owner}.",
        "End what listens there or choose another port; and see that host is an address of this machine.",
    ),
    cause(
        "no SSL",
        r"built without SSL support",
        "The llama-server in this image cannot speak HTTPS.",
        "Take the SSL options out and end TLS in a proxy in front.",
    ),
)

DEVICE = (
    cause(
        "GPU lost",
        r"(?:GPU is lost|GPU has fallen off the bus|Unable to determine the device handle|device (?P<said>is lost)|"
        r"unspecified launch failure|uncorrectable ECC error|CUDA error: (?P<also>an illegal memory access.*))",
        "A GPU failed while llama-server used it{xid}.",
        "See nvidia-smi and the kernel's log for Xid; a lost GPU needs a reset or a reboot before it works again.",
    ),
    cause(
        "VRAM short",
        r"allocating (?P<needed>[\d.]+) MiB on device (?P<device>\d+): cudaMalloc failed: out of memory",
        "{gpu} has not enough free memory: {needed} MiB were asked for in one piece, {free}.",
        "Give it more GPUs, less context (context_size, or -ctk and -ctv q8_0), fewer layers, or end who else is on it "
        "(gpu_info shows them).",
    ),
    cause(
        "VRAM short for the cache",
        r"failed to allocate buffer for kv cache|failed to allocate compute (?:pp |tg )?buffers|"
        r"unable to allocate (?P<device>CUDA\d+) buffer|CUDA error: out of memory|ErrorOutOfDeviceMemory",
        "The memory of the GPUs is too small for the model together with its context: {free}.",
        "Give it more GPUs, less context (context_size, or -ctk and -ctv q8_0), fewer layers, or end who else is on "
        "them (gpu_info shows them).",
    ),
    cause(
        "host memory short",
        r"mmap failed: Cannot allocate memory|std::bad_alloc|failed to allocate (?:CPU|Host|CUDA_Host) buffer|"
        r"unable to allocate (?:CPU|CUDA_Host|Host)\S* buffer|(?:posix_memalign|hbw_posix_memalign|malloc).*failed",
        "The host's memory is too small for what llama-server asked for: {memory}.",
        "Put more layers on the GPUs, use a smaller --cache-ram or context, or raise the limit (ulimit -v, the unit's "
        "MemoryMax).",
    ),
    cause(
        "driver does not fit",
        r"CUDA driver version is insufficient for CUDA runtime version|[Dd]river/library version mismatch|"
        r"no kernel image is available for execution|the provided PTX was compiled with an unsupported toolchain",
        "The image's CUDA and the host's NVIDIA driver do not fit.",
        "Update the driver (after an update: reboot), or use an image built for an older CUDA and for this GPU.",
    ),
)

CONTEXT = (
    cause(
        "K and V differ",
        r"does not support different K \((?P<k>\w+)\) and V \((?P<v>\w+)\) cache types",
        "The types of the K and V cache differ, {k} and {v}, and this model can only have equal ones.",
        "Give --cache-type-k and --cache-type-v one and the same type in args.",
    ),
    cause(
        "V cache without flash attention",
        r"V cache quantization requires flash_attn|quantized V cache (?:was requested|requires flash_attn)",
        "A quantized V cache needs flash attention, which is off.",
        "Take --flash-attn off out of args, or give --cache-type-v f16.",
    ),
    cause(
        "chat template",
        r"common_chat_templates_init: error: (?P<said>.*)|chat template parsing error|"
        r"the supplied chat template is not supported|"
        r"failed to (?:initialize|apply|parse) "
        r"(?:chat )?template",
        "The chat template is not one that the llama-server in this image understands: {said}.",
        "Correct --chat-template or --chat-template-file; if it is the model's own: --jinja, a newer image, or the "
        "model as it is published today.",
    ),
    cause(
        "grammar",
        r"error parsing grammar: (?P<said>.*)|failed to parse grammar",
        "The grammar in args cannot be parsed: {said}.",
        "Correct --grammar, --grammar-file or --json-schema.",
    ),
    cause(
        "adapter",
        r"llama_adapter_lora_init: (?P<said>.*)|failed to load lora adapter '(?P<file>[^']+)'",
        "A LoRA adapter cannot be loaded: {said}{file}.",
        "Correct its path in args; the folder has to be in binds, and the adapter has to be made for this model.",
    ),
    cause(
        "input/output error",
        r"(?P<said>\S.*): input/output error",
        "A file could not be read: {said}: the image is damaged, or the disk or network file system under it fails.",
        "See the kernel's log; then bring the image again, and give image_sha256.",
    ),
)

# A warning that also stands in logs of servers that failed for another reason, so it is asked for last.
WEAK = (
    cause(
        "no GPU in the container",
        r"ggml_cuda_init: failed to initialize CUDA: (?P<said>.*)|no usable GPU found|"
        r"no CUDA-capable device is detected",
        "There is no GPU in the container, so llama-server would run on the CPU: {said}.",
        "See that nvidia-smi works on the host as the user that the server runs as, that gpus names the GPUs, and that "
        "the image is built for CUDA.",
    ),
)
