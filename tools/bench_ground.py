# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark of artifacts stands on: nginx on 127.0.0.1, a certificate, files of random bytes, measured
processes."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[1]
# Debian's packages of what is compared with, and of the server.
PACKAGES = {"nginx": "nginx-light", "curl": "curl", "aria2c": "aria2"}
BLOCK = 16 << 20

CONFIGURATION = """
daemon off;
worker_processes {cores};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    log_format bytes '$body_bytes_sent';
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    root {folder}/files;
    server {{ listen 127.0.0.1:{plain}; }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
    }}
    server {{ listen 127.0.0.1:{capped}; limit_rate 40m; }}
    # What waits in the server's own memory was not fetched.
    server {{ listen 127.0.0.1:{counted} sndbuf=128k; access_log {folder}/bytes.log bytes; }}
}}
"""


@dataclass(frozen=True)
class Spent:
    """What a process took: seconds by the clock, and processor seconds of it and of what it started."""

    seconds: float
    processor: float
    output: str


def run(argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Spent:
    """Run a command and measure it; ends the benchmark if it fails. What earlier ones wrote is on the disk before."""
    variables = {**os.environ, **(environment or {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # as where they are used, libraries are compiled once
    os.sync()
    begin = time.monotonic()
    process = subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read() if process.stdout else ""
    dummy, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    if process.returncode:
        sys.exit(f"bench: {argv[0]} failed:\n{output[-2000:]}")
    return Spent(seconds, used.ru_utime + used.ru_stime, output)


def python(code: str, *words: str) -> list[str]:
    """The argv of a Python of this environment that finds the collection and runs ``code``."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / '.collections')!r})\n{code}", *words]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)


class Ground:
    """A server while it is entered, and a folder ``target`` for what is fetched; all of it goes afterwards."""

    def __init__(self, folder: Path, target: Path | None = None) -> None:
        missing = [package for command, package in PACKAGES.items() if not shutil.which(command, path=_path())]
        if missing:
            sys.exit(
                f"bench: packages are missing. As root: apt-get install --no-install-recommends {' '.join(missing)}"
            )
        self.folder = folder
        self.target = (target or folder) / "target"
        self.certificate = folder / "certificate.pem"
        self.digests: dict[str, str] = {}
        self.ports = {name: _free_port() for name in ("plain", "tls", "capped", "counted")}

    def __enter__(self) -> Ground:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("files", "temporary"):
            (self.folder / name).mkdir(parents=True)
        self.target.mkdir(parents=True)
        _certificate(self.folder)
        owner = "" if os.geteuid() else "user root;"
        text = CONFIGURATION.format(folder=self.folder, cores=os.cpu_count(), **self.ports)
        (self.folder / "nginx.conf").write_text(owner + text)
        nginx = shutil.which("nginx", path=_path()) or "nginx"
        log = str(self.folder / "error.log")
        self._server = subprocess.Popen(
            [nginx, "-e", log, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        )
        for _attempt in range(100):
            with socket.socket() as one:
                if not one.connect_ex(("127.0.0.1", self.ports["plain"])):
                    return self
            time.sleep(0.05)
        sys.exit(f"bench: nginx does not start:\n{Path(log).read_text()}")

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._server.send_signal(signal.SIGTERM)
        self._server.wait()
        for path in (self.folder, self.target):
            shutil.rmtree(path, ignore_errors=True)

    def file(self, size: int) -> str:
        """The name of a served file of that many random bytes; ``digests`` has its sha256."""
        name = f"{size}.bin"
        if name not in self.digests:
            digest = hashlib.sha256()
            with (self.folder / "files" / name).open("wb") as file:
                for at in range(0, size, BLOCK):
                    block = os.urandom(min(BLOCK, size - at))
                    digest.update(block)
                    file.write(block)
            self.digests[name] = digest.hexdigest()
        return name

    def url(self, server: str, name: str) -> str:
        return f"{'https' if server == 'tls' else 'http'}://127.0.0.1:{self.ports[server]}/{name}"

    def clear(self) -> None:
        """Take away what was fetched."""
        shutil.rmtree(self.target)
        self.target.mkdir()

    def sent(self) -> int:
        """Bytes of bodies that the counted server sent in requests that are over."""
        time.sleep(0.5)  # it notices a connection that broke, and writes its line
        return sum(map(int, re.findall(r"\d+", (self.folder / "bytes.log").read_text())))


def _path() -> str:
    """Where commands are, those of the system's administrator too."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
