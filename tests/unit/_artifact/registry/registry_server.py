# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI registry on 127.0.0.1, with a token server, a store for blobs on another port, and switches for faults."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "robot", "s3cret-word"


def sif(text: bytes = b"content") -> bytes:
    """The beginning of a SIF file, and enough behind it."""
    return b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + text * 1000


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class RegistryServer:
    """``auth``: "", "bearer", "private" (a token needs the password) or "basic". ``store``: blobs are elsewhere."""

    def __init__(self, auth: str = "", store: bool = False) -> None:
        self.auth = auth
        self.has_store = store
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.token = "token-number-1"
        self.signature = "signed1"
        self.headers: dict[str, str] = {}  # instead of those of a manifest
        self.fail: list[int] = []  # statuses of the next answers
        self.requests: list[tuple[str, str, str]] = []  # method, path, Authorization
        self.stored: list[tuple[str, str]] = []  # what the store was asked: path, Authorization

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def asked(self) -> list[str]:
        found = [f"{method} {urlsplit(path).path}" for method, path, dummy in self.requests]
        self.requests.clear()
        return found

    def put(self, name: str, manifest: Any, kind: str = MANIFEST) -> str:
        body = json.dumps(manifest).encode()
        for key in (name, digest(body)):
            self.manifests[key] = (kind, body)
        return digest(body)

    def push(self, tag: str, content: bytes, kind: str = SIF_LAYER) -> str:
        """A SIF under a tag, as apptainer push does it; returns the manifest's digest."""
        self.blobs[digest(content)] = content
        layer = {"mediaType": kind, "digest": digest(content), "size": len(content)}
        return self.put(tag, {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer]})

    def __enter__(self) -> RegistryServer:
        self._server = _serve(self._answer)
        self._store = _serve(self._answer_store)
        return self

    def __exit__(self, *dummy: object) -> None:
        for one in (self._server, self._store):
            one.shutdown()
            one.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "")
        self.requests.append((handler.command, handler.path, given))
        path = urlsplit(handler.path).path
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.fail:
            _send(handler, self.fail.pop(0), {"Retry-After": "0"}, b'{"errors": [{"message": "a moment"}]}')
        elif path == "/token":
            asked = parse_qs(urlsplit(handler.path).query)
            sound = asked == {"service": ["here"], "scope": ["repository:gpu/llamacpp:pull"]}
            if not sound or (self.auth == "private" and given != basic):
                _send(handler, 401, {}, b'{"errors": [{"message": "incorrect username or password"}]}')
            else:
                _send(handler, 200, {}, json.dumps({"token": self.token}).encode())
        elif self.auth == "basic" and given != basic:
            _send(handler, 401, {"WWW-Authenticate": 'Basic realm="here"'}, b"")
        elif self.auth in ("bearer", "private") and given != f"Bearer {self.token}":
            fields = f'realm="http://{self.host}/token",service="here",scope="repository:gpu/llamacpp:pull"'
            _send(handler, 401, {"WWW-Authenticate": f"Bearer {fields}"}, b"")
        else:
            self._content(handler, path)

    def _content(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        name = path.rpartition("/")[2]
        if path == f"/v2/gpu/llamacpp/manifests/{name}" and name in self.manifests:
            kind, body = self.manifests[name]
            headers = {"Content-Type": kind, "Docker-Content-Digest": digest(body)}
            _send(handler, 200, {**headers, **self.headers}, body)
        elif path == f"/v2/gpu/llamacpp/blobs/{name}" and name in self.blobs:
            if self.has_store:
                port = self._store.server_address[1]
                _send(handler, 307, {"Location": f"http://127.0.0.1:{port}/{name}?sig={self.signature}"}, b"")
            else:
                _send_range(handler, self.blobs[name])
        else:
            _send(handler, 404, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

    def _answer_store(self, handler: BaseHTTPRequestHandler) -> None:
        self.stored.append((handler.path, handler.headers.get("Authorization", "")))
        asked = urlsplit(handler.path)
        if asked.query != f"sig={self.signature}":
            _send(handler, 403, {}, b"Request has expired")
        else:
            _send_range(handler, self.blobs[asked.path[1:]])


def _serve(answer: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *dummy: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def _send_range(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    wanted = handler.headers.get("Range")
    if not wanted:
        _send(handler, 200, {}, content)
        return
    first, last = (int(one) for one in wanted.partition("=")[2].split("-"))
    part = content[first : last + 1]
    _send(handler, 206, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"}, part)


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
