# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that models and images come from at a site with internet, each in a control group of its own.

They start when `lab servers` asks for them, and end with the lab.

  hub      our emulation of the model hub, which the hub's own client downloads from in the unit tests
  nginx    the hub's CDN, and a plain web server, also over TLS
  olah     a mirror of the hub that was not written here
  open     Debian's OCI registry, for everybody
  private  the same images, for who has a token; `tokens` gives it for the password
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import network
import push
import stock
from group import Group
from images import MODEL_NAME, SIF_NAME, Images, venv_python
from state import REPO, Lab, LabError, run, say

HERE = Path(__file__).resolve().parent
PORTS = {
    "hub": 8001,
    "cdn": 8002,
    "olah": 8003,
    "desk": 8009,
    "tls": 8443,
    "open": 5000,
    "private": 5001,
    "tokens": 5002,
}
USER, PASSWORD = "robot", "registry-password-9Xq2"
MODEL_REPO = "lab/SmolLM2-135M-Instruct-GGUF"
# The operator's split models, by the beginning of their parts' names, and the number of parts of the tiny one instead.
STAND_INS = {
    "unsloth/GLM-4.7-GGUF/UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL": 3,
    "lmstudio-community/DeepSeek-V2.5-GGUF/DeepSeek-V2.5-Q6_K": 5,
}

NGINX = """\
user root;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
    # Bytes that were sent, the range that was asked for, and what was asked.
    log_format lab '$body_bytes_sent "$http_range" "$request" $status';
    access_log {folder}/access.log lab;
    client_body_temp_path {folder}/tmp;
    proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp;
    scgi_temp_path {folder}/tmp;
    uwsgi_temp_path {folder}/tmp;
    sendfile on;
    default_type application/octet-stream;
    server {{
        listen {address}:{cdn};
        # The hub's desk knows which addresses it has signed, and until when.
        location ~ ^/xet-bridge-us/.+/([0-9a-f]+)$ {{
            auth_request /signed;
            alias {folder}/store/$1;
        }}
        location = /signed {{
            internal;
            proxy_pass http://{address}:{desk}/signed;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-URI $request_uri;
        }}
        location /files/ {{ alias {folder}/files/; }}
    }}
    server {{
        listen {address}:{tls} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        location /files/ {{ alias {folder}/files/; }}
    }}
}}
"""
REGISTRY = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}, delete: {{enabled: true}}}}
http:
  addr: {address}:{port}
"""
TOKENS = """\
auth:
  token:
    realm: http://{address}:{tokens}/token
    service: lab
    issuer: lab
    rootcertbundle: {folder}/ca.pem
"""


Command = list[str | Path]


def folder_of(lab: Lab) -> Path:
    return lab.run / "servers"


def addresses(lab: Lab) -> dict[str, str]:
    """What the inventory says about the servers; nothing before they were asked for."""
    if not lab.record.get("servers"):
        return {}
    host = network.controller(lab)
    return {
        "lab_servers": str(folder_of(lab)),
        "lab_hub": f"http://{host}:{PORTS['hub']}",
        "lab_hub_desk": f"http://{host}:{PORTS['desk']}",
        "lab_hub_mirror": f"http://{host}:{PORTS['olah']}",
        "lab_files": f"http://{host}:{PORTS['cdn']}/files",
        "lab_files_tls": f"https://{host}:{PORTS['tls']}/files",
        "lab_registry": f"{host}:{PORTS['open']}",
        "lab_registry_private": f"{host}:{PORTS['private']}",
    }


def up(lab: Lab, images: Images) -> None:
    """Build what is missing, and start what does not run."""
    begin = time.monotonic()
    built = stock.build(images)
    lab.record["servers"] = True
    lab.save()
    folder = folder_of(lab)
    _lay_out(folder, images, built)
    # In the project's environment: the machine's Python may lack the library for it.
    run(venv_python(), HERE / "keys.py", folder, network.controller(lab))
    values = {"folder": folder, "address": network.controller(lab), **PORTS}
    (folder / "nginx.conf").write_text(NGINX.format(**values))
    (folder / "open.yml").write_text(REGISTRY.format(**values, port=PORTS["open"]))
    (folder / "private.yml").write_text(REGISTRY.format(**values, port=PORTS["private"]) + TOKENS.format(**values))
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPO / ".collections"), "HOME": str(folder)}
    for name, argv in _commands(lab, folder, built).items():
        group = Group(f"{lab.id}-server-{name}")
        if not group.kept():
            group.kill()
            group.start(argv, folder / f"{name}.out", environment)
    _wait(lab, folder)
    _fill_registry(folder, f"http://{network.controller(lab)}:{PORTS['open']}", images)
    say(f"{', '.join(PORTS)} answer at {network.controller(lab)}; {time.monotonic() - begin:.1f} s")


def _lay_out(folder: Path, images: Images, built: stock.Stock) -> None:
    """The repositories and files are links to what the cache has."""
    for name in ("store", "files", "tmp", "registry", "olah", f"repos/{MODEL_REPO}/split"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    repo = folder / "repos" / MODEL_REPO
    links = {repo / MODEL_NAME: images.model / MODEL_NAME, folder / "files" / SIF_NAME: images.sif / SIF_NAME}
    links |= {folder / "programs": built.programs}
    links |= {repo / "split" / part.name: part for part in built.real[3].iterdir()}
    for name, parts in STAND_INS.items():
        stand_in = folder / "repos" / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        for part in sorted(built.tiny[parts].iterdir()):
            links[Path(f"{stand_in}-{part.stem[-14:]}.gguf")] = part
    for link, target in links.items():
        if not link.is_symlink():
            link.symlink_to(target)
    (folder / "password").write_text(PASSWORD)


def _commands(lab: Lab, folder: Path, built: stock.Stock) -> dict[str, list[str | Path]]:
    address, python = network.controller(lab), venv_python()
    front = f"http://{address}:{PORTS['cdn']}"
    service: Command = [python, "-m", "ansible_collections.gpufleet.llamacpp.tests.lab.hub_service"]
    registry: Command = [*built.program("bin/docker-registry"), "serve"]
    signer: Command = [folder / "server.key", folder / "server.pem", USER, folder / "password"]
    upstream = ["--hf-scheme", "http", "--hf-netloc", f"{address}:{PORTS['hub']}", "--hf-lfs-netloc", front[7:]]
    own = ["--mirror-scheme", "http", "--mirror-netloc", f"{address}:{PORTS['olah']}"]
    olah: Command = [stock.OLAH / "bin" / "olah-cli", "--host", address, "--port", str(PORTS["olah"]), *upstream, *own]
    return {
        "hub": [*service, address, str(PORTS["hub"]), str(PORTS["desk"]), front, folder / "repos", folder / "store"],
        "nginx": [*built.program("sbin/nginx"), "-e", "stderr", "-c", folder / "nginx.conf", "-g", "daemon off;"],
        "open": [*registry, folder / "open.yml"],
        "private": [*registry, folder / "private.yml"],
        "tokens": [python, HERE / "tokens.py", address, str(PORTS["tokens"]), *signer],
        "olah": [*olah, "--repos-path", folder / "olah", "--log-path", folder / "olah"],
    }


def _wait(lab: Lab, folder: Path) -> None:
    deadline = time.monotonic() + 30
    waiting = dict(PORTS)
    while waiting:
        for name, port in list(waiting.items()):
            with socket.socket() as attempt:
                if attempt.connect_ex((network.controller(lab), port)) == 0:
                    del waiting[name]
        if waiting and time.monotonic() > deadline:
            logs = "\n".join(f"{log.name}: {log.read_text()[-500:]}" for log in folder.glob("*.out"))
            raise LabError(f"{', '.join(waiting)} did not start within 30 s; what the servers say:\n{logs}")
        time.sleep(0.05)


def _fill_registry(folder: Path, registry: str, images: Images) -> None:
    if (folder / "registry.filled").exists():
        return
    push.sif(registry, "lab/llamacpp", "stable", images.sif / SIF_NAME)
    hello = {"opt/hello": b"#!/bin/sh\necho hello\n", "etc/lab-release": b"the lab's container image\n"}
    push.container(registry, "lab/container", "1", hello, {"org.opencontainers.image.title": "The lab's container"})
    (folder / "registry.filled").touch()
