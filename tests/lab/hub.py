# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model hub that speaks huggingface.co's protocol, with its CDN on another port, and fails as it is told to.

The real client, huggingface_hub, downloads from it in the unit tests: that keeps it honest.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ansible_collections.gpufleet.llamacpp.tests.lab.hub_store import File, Repo, Switches

# Git keeps smaller files itself unless .gitattributes names their kind; the hub's default names *.gguf.
LFS_BYTES = 10 << 20


@dataclass(frozen=True)
class Asked:
    """A request as it came; ``server`` is hub or cdn."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Hub:
    """Serves while it is entered; ``asked`` has what came, ``switches`` may be turned at any time."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, front: str = "") -> None:
        """``front`` is the address of a web server that gives the files to whom is_signed() lets through."""
        self.repos: dict[str, Repo] = {}
        self.switches = Switches()
        self.asked: list[Asked] = []
        self._key = secrets.token_bytes(16)
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._address = address
        self._front = front
        self._servers = [_Server((address, port), _HubHandler, self), _Server((address, 0), _CdnHandler, self)]

    @property
    def endpoint(self) -> str:
        return f"http://{self._address}:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return self._front or f"http://{self._address}:{self._servers[1].server_address[1]}"

    def repo(self, name: str) -> Repo:
        """The repository of that name, made where it is missing."""
        return self.repos.setdefault(name, Repo())

    def questions(self) -> list[str]:
        """What the hub itself was asked, as "METHOD /path"."""
        return [f"{one.method} {one.path}" for one in self.asked if one.server == "hub"]

    def __enter__(self) -> Hub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # What the handlers ask

    def note(self, server: str, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append(Asked(server, handler.command, handler.path, dict(handler.headers.items())))

    def admit(self) -> tuple[int, dict[str, str]] | None:
        """Why a request to the hub is put off, if it is."""
        with self._lock:
            switches = self.switches
            if switches.unavailable:
                switches.unavailable -= 1
                return 503, {"Retry-After": str(switches.retry_after)}
            if switches.limit is not None:
                if not switches.limit:
                    # The window ends with the answer: who waits as asked is let in.
                    switches.limit = None
                    wait = {"Retry-After": str(switches.retry_after)} if switches.retry_after >= 0 else {}
                    return 429, {**wait, "RateLimit": f'"resolvers";r=0;t={max(switches.retry_after, 0)}'}
                switches.limit -= 1
        return None

    def find(self, name: str, revision: str, token: str | None) -> tuple[Repo, str]:
        """The repository, and the commit that the revision is. Raises Refused."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and token not in repo.readers):
            status = 404 if token else 401
            raise Refused(status, "RepoNotFound", "Repository not found" if token else "Invalid username or password.")
        revision = unquote(revision)
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def sign(self, name: str, file: File) -> str:
        """The CDN's address of the file, good for a while."""
        path = f"/xet-bridge-us/{quote(name, safe='')}/{file.sha256[::-1]}"
        expires = f"{time.time() + self.switches.url_seconds:.3f}"
        serial = secrets.token_hex(4)
        return f"{self.cdn}{path}?Expires={expires}&Policy={serial}&Signature={self._signature(path, expires, serial)}"

    def is_signed(self, address: str) -> bool:
        parts = urlsplit(address)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        signature, expires = query.get("Signature", ""), query.get("Expires", "0")
        with self._lock:
            self._uses[signature] += 1
            used_up = self.switches.url_uses is not None and self._uses[signature] > self.switches.url_uses
        right = hmac.compare_digest(signature, self._signature(parts.path, expires, query.get("Policy", "")))
        return right and not used_up and float(expires) > time.time()

    def _signature(self, path: str, expires: str, serial: str) -> str:
        return hmac.new(self._key, f"{path} {expires} {serial}".encode(), "sha256").hexdigest()

    def stored(self, path: str) -> File | None:
        """What the CDN has under the path."""
        dummy, _bridge, name, key = path.split("/", 3)
        for files in self.repos.get(unquote(name), Repo()).commits.values():
            for file in files.values():
                if file.sha256[::-1] == key:
                    return file
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[_Handler], hub: Hub) -> None:
        super().__init__(address, handler)
        self.hub = hub

    def handle_error(self, *dummy: object) -> None:
        pass  # a client that goes away is no error of the hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def give(self, file: File, headers: Mapping[str, str]) -> None:
        """The file, or a range of it."""
        switches = self.hub.switches
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if switches.ranges else None
        first = int(found[1]) if found else 0
        end = min(int(found[2]) + 1 if found and found[2] else file.size, file.size)
        if found and first >= end:
            self.answer(416, b"", {"Content-Range": f"bytes */{file.size}"})
            return
        more = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        more["Content-Length"] = str(end - first)
        if found:
            more["Content-Range"] = f"bytes {first}-{end - 1}/{file.size}"
        body = bytearray(b"" if self.command == "HEAD" else file.read(first, end))
        if switches.flip is not None and first <= switches.flip < first + len(body):
            body[switches.flip - first] ^= 1
        self.answer(206 if found else 200, bytes(body), more)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def log_message(self, *dummy: object) -> None:
        pass


class _CdnHandler(_Handler):
    def do_GET(self) -> None:
        self.hub.note("cdn", self)
        if not self.hub.is_signed(self.path):
            self.answer(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
            return
        file = self.hub.stored(urlsplit(self.path).path)
        if file is None:
            self.answer(404)
        else:
            # The CDN knows the content by a hash of its own, never by its sha256.
            self.give(file, {"ETag": f'"{file.sha256[::-1]}"'})


class _HubHandler(_Handler):
    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.note("hub", self)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        put_off = self.hub.admit()
        if put_off:
            self.answer(put_off[0], b"", put_off[1])
            return
        if self.hub.switches.login_page:
            self.answer(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
            return
        try:
            self._route(body)
        except Refused as why:
            text = json.dumps({"error": str(why)}).encode()
            headers = {"X-Error-Code": why.code, "X-Error-Message": str(why), "Content-Type": "application/json"}
            self.answer(why.status, text, headers)

    @property
    def token(self) -> str | None:
        kind, dummy, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def _route(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        for old, new in self.hub.switches.moved.items():
            if f"/{old}/" in parts.path:
                target = parts._replace(path=parts.path.replace(f"/{old}/", f"/{new}/")).geturl()
                self.answer(307, b"Temporary Redirect", {"Location": target})
                return
        whole = re.sub(r"^(/api/models/[^/]+/[^/]+)$", r"\1/revision/main", parts.path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree|paths-info)/([^/]+)", whole)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", parts.path)
        small = re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", parts.path)
        if api:
            repo, commit = self.hub.find(api[1], api[3], self.token)
            if api[2] == "revision":
                self._revision(repo, commit, api[1])
            elif api[2] == "tree":
                self._tree(repo, commit, parse_qs(parts.query))
            elif self.hub.switches.paths_info and self.command == "POST":
                paths = parse_qs(body.decode()).get("paths", [])
                self._json([one for one in self._entries(repo, commit) if one["path"] in paths])
            else:
                self.answer(404, b"Cannot POST", {"Content-Type": "text/html"})
        elif file or small:
            found = file or small
            assert found is not None
            self._resolve(found[1], found[2], unquote(found[3]), bool(small))
        else:
            self.answer(404, b"<html>Not here</html>", {"Content-Type": "text/html"})

    def _json(self, content: object, headers: Mapping[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        self.answer(200, json.dumps(content).encode(), {**kind, **(headers or {})})

    def _revision(self, repo: Repo, commit: str, name: str) -> None:
        told: dict[str, object] = {"id": name, "modelId": name, "sha": commit, "private": repo.private}
        told["gated"] = "manual" if repo.gated else False
        if self.hub.switches.siblings:
            told["siblings"] = [{"rfilename": one} for one in repo.commits[commit]]
        self._json(told)

    def _entries(self, repo: Repo, commit: str) -> list[dict[str, object]]:
        masked = repo.gated and self.token not in repo.readers
        entries: list[dict[str, object]] = []
        folders = {part for name in repo.commits[commit] for part in _parents(name)}
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)]
        for name, file in repo.commits[commit].items():
            entry: dict[str, object] = {"type": "file", "oid": file.blob, "size": file.size, "path": name}
            if _is_lfs(name, file):
                oid = "*" * 64 if masked else file.sha256
                entry["lfs"] = {"oid": oid, "size": file.size, "pointerSize": 135}
                if self.hub.switches.xet:
                    entry["xetHash"] = file.sha256[::-1]
            entries.append(entry)
        return entries

    def _tree(self, repo: Repo, commit: str, query: Mapping[str, list[str]]) -> None:
        entries = self._entries(repo, commit)
        start = int(query.get("cursor", ["0"])[0])
        end = start + self.hub.switches.page
        more = {}
        if end < len(entries):
            path = urlsplit(self.path).path
            more["Link"] = f'<{self.hub.endpoint}{path}?recursive=true&expand=false&cursor={end}>; rel="next"'
        self._json(entries[start:end], more)

    def _resolve(self, name: str, revision: str, path: str, direct: bool) -> None:
        repo, commit = self.hub.find(name, revision, self.token)
        if repo.gated and self.token not in repo.readers:
            words = "Access to model is restricted" if self.token else "Access is restricted. You must be authenticated"
            raise Refused(403 if self.token else 401, "GatedRepo", words)
        file = repo.commits[commit].get(path)
        if file is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        switches, told = self.hub.switches, {"X-Repo-Commit": commit}
        lfs = _is_lfs(path, file)
        etag = f'"{file.sha256 if lfs else file.blob}"'
        if direct or (lfs and switches.inline):
            self.give(file, {**told, "ETag": etag})
            return
        if switches.linked:
            told.update({"X-Linked-Size": str(file.size), "X-Linked-Etag": etag})
        if lfs and switches.xet:
            told["X-Xet-Hash"] = file.sha256[::-1]
        location = self.hub.sign(name, file) if lfs else f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}"
        self.answer(302 if lfs else 307, b"Found. Redirecting to " + location.encode(), {**told, "Location": location})


def _is_lfs(name: str, file: File) -> bool:
    return name.endswith((".gguf", ".safetensors")) or file.size >= LFS_BYTES


def _parents(name: str) -> list[str]:
    return [str(parent) for parent in Path(name).parents if str(parent) != "."]
