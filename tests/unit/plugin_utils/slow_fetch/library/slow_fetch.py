# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that fetches nothing for 1.5 s, and reports its progress as gguf_model and sif_image do."""

from __future__ import annotations

import os
import signal
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.progress import (
    DEFER,
    DEFERRED,
    FILE,
    begin,
    is_deferred,
)


def main() -> None:
    options = {"fetch": {"type": "bool", "required": True}, "killed": {"type": "bool"}}
    module = AnsibleModule(options, supports_check_mode=True)
    with begin("/data/models/a.gguf") as progress:
        if module.params["fetch"] and is_deferred():
            module.exit_json(**DEFERRED)
        if module.params["fetch"] and not module.check_mode:
            progress.enter("copy", "/data/models/a.gguf")
            time.sleep(1.5)
        if module.params["killed"]:
            os.kill(os.getpid(), signal.SIGKILL)
    asked = [name for name in (FILE, DEFER) if name in os.environ]
    module.exit_json(changed=module.params["fetch"], asked=asked)


if __name__ == "__main__":
    main()
