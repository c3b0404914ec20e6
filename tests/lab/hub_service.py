# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub as a server of the lab: repositories out of a folder, nginx as its CDN, and a desk for the tests.

hub_service.py ADDRESS PORT DESK_PORT FRONT REPOSITORIES STORE

REPOSITORIES/<owner>/<name>/... is what the branch main of each repository holds. STORE/<key> are the same files as the
CDN knows them; FRONT is where it gives them, to whom the desk lets through. The desk answers

    GET  /signed            nginx's auth_request: whether the address in X-Original-URI is signed, and still good
    POST /switch            {"switches": {...}, "repos": {"owner/name": {"gated": true, "readers": ["token"]}}}
    POST /commit            the repositories' main is what lies in their folders now; answers with the commits
    GET  /asked             the requests since the last time, as [[server, method, path, token], ...]
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ansible_collections.gpufleet.llamacpp.tests.lab.hub import Asked, Hub


def commit(hub: Hub, repositories: Path, store: Path) -> dict[str, str]:
    """Make every branch main what the folder holds, and the CDN's store fit; the commits by repository."""
    commits = {}
    for repo in sorted(repositories.glob("*/*/")):
        name = f"{repo.parent.name}/{repo.name}"
        files = {str(one.relative_to(repo)): one for one in sorted(repo.rglob("*")) if one.is_file()}
        commits[name] = hub.repo(name).commit(files)
        for file in hub.repos[name].commits[commits[name]].values():
            link = store / file.sha256[::-1]
            if isinstance(file.content, Path) and not link.is_symlink():
                link.symlink_to(file.content.resolve())
    return commits


def desk(hub: Hub, repositories: Path, store: Path) -> type[BaseHTTPRequestHandler]:
    class Desk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/asked":
                told, hub.asked = hub.asked, []
                self.answer(200, [[one.server, one.method, one.path, one.headers.get("Authorization")] for one in told])
                return
            address = self.headers.get("X-Original-URI", "")
            hub.asked.append(Asked("cdn", "GET", address, dict(self.headers.items())))
            self.answer(200 if hub.is_signed(address) else 403)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/commit":
                self.answer(200, commit(hub, repositories, store))
                return
            wanted = json.loads(body)
            for name, value in wanted.get("switches", {}).items():
                setattr(hub.switches, name, value)
            for repo, fields in wanted.get("repos", {}).items():
                for name, value in fields.items():
                    setattr(hub.repo(repo), name, set(value) if name == "readers" else value)
            self.answer(200)

        def answer(self, status: int, content: object = None) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *dummy: object) -> None:
            pass

    return Desk


def main() -> None:
    address, port, desk_port, front, repositories, store = sys.argv[1:]
    with Hub(address, int(port), front) as hub:
        commit(hub, Path(repositories), Path(store))
        ThreadingHTTPServer((address, int(desk_port)), desk(hub, Path(repositories), Path(store))).serve_forever()


if __name__ == "__main__":
    main()
