# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a llama-server could print as its help: a few options, laid out as the real ones are."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.gpufleet.llamacpp.tests.unit._artifact.fake_runtime import printed

HELP = """----- common params -----

-h,    --help, --usage                  what there is
-m,    --model FNAME                    the model
                                        (env: LLAMA_ARG_MODEL)
-c,    --ctx-size N                     tokens (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-t,    --threads N                      threads
                                        (env: LLAMA_ARG_THREADS)
-s,    --seed SEED                      where chance begins (default: -1, another one each time)
-ngl,  --gpu-layers, --n-gpu-layers N   layers on the GPUs
                                        (env: LLAMA_ARG_N_GPU_LAYERS)
-fit,  --fit [on|off]                   make it fit
                                        (env: LLAMA_ARG_FIT)
-sm,   --split-mode {none,layer,row}    how to split
-ctk,  --cache-type-k TYPE              type of K
                                        allowed values: f16, q8_0
                                        (default: f16)
-lm,   --load-mode MODE                 how to load
                                        - auto: as it can
                                        - mlock (old): and keep it there
                                        (env: LLAMA_ARG_LOAD_MODE)
--poll <0...100>                        how eagerly to wait
--cpu-strict <0|1>                      whether to stay
-dt,   --defrag-thold N                 tidy up (DEPRECATED)
--log-file FNAME                        where to write
--rpc SERVERS                           who computes
-fitt, --fit-target MiB0,MiB1,MiB2,...  target margin, default: 1024
--slot-save-path PATH                   where to keep slots

----- sampling params -----

--temp, --temperature N                 temperature
                                        (env: LLAMA_ARG_TEMPERATURE)
--top-k N                               the best of them (default: 40, 0 = disabled)
                                        (env: LLAMA_ARG_TOP_K)
--top-p N                               the likely ones
--min-p N                               not the unlikely ones
--repeat-penalty N                      against repeating
--new-thing N                           any number
--lora FNAME                            more weights
--slot-prompt-similarity SIMILARITY     how alike (default: 0.10, 0.0 = disabled)
--control-vector-layer-range START END
                                        from layer to layer
--draft, --draft-max N                  the argument has been removed. use --spec-draft-n-max instead

----- example-specific params -----

--host HOST                             address (default: 127.0.0.1)
                                        (env: LLAMA_ARG_HOST)
--port PORT                             port (default: 8080)
                                        (env: LLAMA_ARG_PORT)
--jinja, --no-jinja                     templates
                                        (env: LLAMA_ARG_JINJA)
--metrics                               numbers to watch
                                        (env: LLAMA_ARG_ENDPOINT_METRICS)
--api-key-file FNAME                    the keys
-fa,   --flash-attn [on|off|auto]       attention
--fim-qwen-1.5b-default                 a model of its own
"""


class Image:
    """The llama-server of an image: tells its help and build, refuses with ``said``, and remembers what it was asked.

    ``answers`` are for the command line, one after the other, the last one for ever.
    """

    def __init__(self, *answers: tuple[int, str], text: str = HELP, help_code: int = 0, inside: str = "") -> None:
        self.answers = list(answers or [(0, "")])
        self.text, self.help_code, self.inside = text, help_code, inside
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(list(argv))
        if "/bin/sh" in argv:
            server = argv[argv.index("sh") + 1] or "/usr/bin/llama-server"
            version = (0, "version: 0.7.0 (build 11669, commit Debian)\nbuilt for Linux")
            help_text = (self.help_code, "" if self.help_code else self.text)
            return 0, printed(server, version, help_text, self.inside), "it does not start"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer[0], "", answer[1]

    @property
    def lines(self) -> list[list[str]]:
        """The command lines that its parser was asked about."""
        return [argv for argv in self.asked if argv[-1] == "--completion-bash"]
