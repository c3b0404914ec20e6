# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All known causes of a failed start, in the order in which they are looked for; and those that no line tells. Data.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re

from . import container
from . import model as model_causes
from . import server as server_causes
from .cause import Cause

CAUSES = (
    *container.CONTAINER,
    *server_causes.SERVER,  # the arguments are read, and the port is taken, before the model is loaded
    *model_causes.MODEL,
    *server_causes.DEVICE,
    *server_causes.CONTEXT,
    *server_causes.WEAK,
)
# What no line of the log says.
NEVER = re.compile(r"(?!)")

# By exit status, where no line of the log says more. Above 128 it is the signal that ended the process.
STATUSES = {
    78: Cause(
        "configuration",
        NEVER,
        "The runner refuses to start it, as starting again would not help.",
        "Do what the last line of the log says.",
    ),
    132: Cause(
        "illegal instruction",
        NEVER,
        "llama-server was ended by an illegal instruction (SIGILL): the image is built for a newer CPU than this one.",
        "Use an image that is built for this CPU (GGML_NATIVE off, or with all CPU variants).",
    ),
    134: Cause(
        "abort",
        NEVER,
        "llama-server aborted itself (SIGABRT){xid}; it does so after an error of CUDA, and where it meets what it "
        "cannot handle.",
        "The lines above its end say at what; a newer or the former image may not have the fault.",
    ),
    135: Cause(
        "bus error",
        NEVER,
        "llama-server lost a file under its feet (SIGBUS): the image or the model was changed in place or cut short "
        "while it was in use, or its disk failed.",
        "Bring both again under new names or by renaming, never by writing into them.",
    ),
    137: Cause(
        "killed",
        NEVER,
        "llama-server was killed (SIGKILL) by somebody or something else than its manager.",
        "The kernel's log says whether memory was short; otherwise see who ended it.",
    ),
    139: Cause(
        "crash",
        NEVER,
        "llama-server crashed (SIGSEGV), which is a fault of its build or of a damaged model.",
        "Compare the model's sha256; use another image.",
    ),
}
OOM = Cause(
    "OOM killer",
    re.compile(r"(?i)out of memory|oom-kill|killed process|oom_reaper"),
    "llama-server was killed because memory was short on the host ({oom}): {memory}.",
    "Put more layers on the GPUs, use a smaller --cache-ram or context, raise the unit's MemoryMax, or end what else "
    "takes memory.",
)
XID = Cause(
    "GPU lost",
    re.compile(r"NVRM: Xid"),
    "A GPU failed{xid}.",
    "A GPU that is lost needs a reset or a reboot; see nvidia-smi before the instance is started again.",
)
