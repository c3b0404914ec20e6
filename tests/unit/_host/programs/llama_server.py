# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for llama-server. The file ``behaviour`` beside it says what it answers.

{"health": 200, "slots": [..] or a status, "term": what it does on TERM, "die": an exit status instead of a start}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

here = os.path.dirname(os.path.abspath(__file__))
# Opened once: during a drain no descriptor is free.
settings = os.open(here + "/behaviour", os.O_RDONLY)
requests = os.open(here + "/requests", os.O_WRONLY | os.O_APPEND)
terms = 0


def behaviour() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(os.pread(settings, 4096, 0))
    return found


def term(number: int, frame: object) -> None:
    global terms
    terms += 1
    os.write(requests, b"TERM\n")
    if behaviour()["term"] == "leave" or (behaviour()["term"] == "leave at the second" and terms == 2):
        print("bye", flush=True)
        os._exit(terms - 1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        os.write(requests, f"{self.path} {self.headers.get('Authorization')}\n".encode())
        if self.path == "/stream":  # an answer in parts, for as long as the slots are busy
            self.send_response(200)
            self.end_headers()
            while behaviour()["slots"] == 501 or behaviour()["slots"][0]["is_processing"]:
                self.wfile.write(b"token ")
                time.sleep(0.02)
            self.wfile.write(b"done")
            self.close_connection = True
            return
        value = behaviour()[self.path[1:]]
        status, body = (value, b"{}") if isinstance(value, int) else (200, json.dumps(value).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *dummy: object) -> None:
        pass


if behaviour().get("die"):
    print("error: invalid argument", flush=True)
    sys.exit(behaviour()["die"])
signal.signal(signal.SIGTERM, term)
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listening ü", *sys.argv[2:], flush=True)
server.serve_forever()
