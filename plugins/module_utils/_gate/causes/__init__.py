# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All known causes of a failed start, in the order in which they are searched, and those that no log line shows.

Private to gpufleet.llamacpp; may change at any time. To add a cause, add it to a table of this folder, and a recorded
log to tests/unit/_gate/failures.txt.
"""

from __future__ import annotations

from . import container
from . import model as model_causes
from . import server as server_causes
from .cause import cause

# Searched in the log of the start: the first cause with a matching line is the one.
CAUSES = (
    *container.CONTAINER,
    *server_causes.SERVER,  # arguments are parsed and the port is bound before the model is loaded
    *model_causes.MODEL,
    *server_causes.DEVICE,
    *server_causes.CONTEXT,
    *server_causes.WEAK,
)

# By exit status, where the log shows no cause. Above 128 it is 128 plus the signal that ended the process.
STATUSES = {
    78: cause(
        "configuration",
        text="The runner refuses to start the server, because another try would fail in the same way",
        remedy="The last line of the log shows what to correct.",
    ),
    132: cause(
        "illegal instruction",
        text="llama-server executed an illegal instruction (SIGILL): the image is built for a newer CPU than this one",
        remedy="Use an image built for this CPU (GGML_NATIVE off, or with all CPU variants).",
    ),
    134: cause(
        "abort",
        text="llama-server aborted (SIGABRT), as it does after a CUDA error or another error that it cannot handle",
        remedy="The last lines of the log show the error. Try a newer image, or the previous one.",
    ),
    135: cause(
        "bus error",
        text="llama-server lost access to a file that it uses (SIGBUS): the image or the model was changed in place, "
        "or its disk failed",
        remedy="Put both there again, under new names or by renaming. Never write into a file that is in use.",
    ),
    137: cause(
        "killed",
        text="llama-server was killed (SIGKILL), and not by its manager",
        remedy="The kernel log shows whether memory was short. Otherwise find out who killed it.",
    ),
    139: cause(
        "crash",
        text="llama-server crashed (SIGSEGV): its build has a defect, or the model is damaged",
        remedy="Compare the model's sha256, and try another image.",
    ),
}

# Searched in the kernel's log.
OOM = cause(
    "OOM killer",
    r"(?i)out of memory|oom-kill|killed process|oom_reaper",
    text="The kernel killed llama-server, because the host was out of memory or the unit reached its memory limit",
    detail="{memory_free} free now",
    remedy="Put more layers on the GPUs, use a smaller --cache-ram or context, raise the unit's MemoryMax, or end "
    "other programs.",
)
XID = cause(
    "GPU failed",
    r"NVRM: Xid",
    text="A GPU failed",
    detail="{xid}",
    remedy="Check nvidia-smi before you start the instance again. A lost GPU needs a reset or a reboot.",
)
