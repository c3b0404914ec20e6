# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of models and images share: the servers, their models, and disks of the host."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from ansible_collections.gpufleet.llamacpp.tests.lab import push
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
LAB = os.environ.get("LAB") or "molecule"
NAME = "SmolLM2-135M-Instruct.Q4_1"
REPO = "lab/SmolLM2-135M-Instruct-GGUF"
MIB = 1 << 20


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Request:
    """A line of nginx's log: the request, and the bytes of the response."""

    sent: int
    range: str
    line: str
    status: int


class Servers:
    """The lab's servers, from the variables of `lab inventory`."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self.folder = Path(variables["lab_servers"])
        self.hub, self.desk, self.mirror = variables["lab_hub"], variables["lab_hub_desk"], variables["lab_hub_mirror"]
        self.files, self.files_tls = variables["lab_files"], variables["lab_files_tls"]
        self.registry, self.private = variables["lab_registry"], variables["lab_registry_private"]
        self.user, self.password = "robot", (self.folder / "password").read_text()
        self._seen = {"access.log": 0, "open.out": 0}

    def ask(self, method: str, url: str, content: Any = None, headers: dict[str, str] | None = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(url, body, headers or {}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.headers if method == "HEAD" else json.loads(answer.read() or "null")

    def switch(self, repos: dict[str, dict[str, Any]] | None = None, **switches: Any) -> None:
        self.ask("POST", f"{self.desk}/switch", {"switches": switches, "repos": repos or {}})

    def commit(self) -> None:
        """Publish the files in the folders of the hub's repositories."""
        self.ask("POST", f"{self.desk}/commit", {})

    def asked(self) -> list[list[str]]:
        """The new requests to the hub and its CDN: server, method, path, Authorization."""
        return self.ask("GET", f"{self.desk}/asked")

    def requests(self) -> list[Request]:
        """The new requests to nginx."""
        found = [re.fullmatch(r'(\d+) "(.*?)" "(.*)" (\d+)', line) for line in self._news("access.log")]
        return [Request(int(one[1]), one[2], one[3], int(one[4])) for one in found if one]

    def asked_of_registry(self) -> list[str]:
        """The new requests to the open registry."""
        return re.findall(r'"((?:GET|HEAD) /v2/\S+) ', "\n".join(self._news("open.out")))

    def _news(self, log: str) -> list[str]:
        time.sleep(0.1)  # nginx writes a line when a request has ended
        text = (self.folder / log).read_text()
        news, self._seen[log] = text[self._seen[log] :], len(text)
        return news.splitlines()

    def push(self, repository: str, tag: str, sif: Path) -> None:
        push.sif(f"http://{self.registry}", repository, tag, sif)

    def digest(self, repository: str, tag: str) -> str:
        """The digest of the tag's manifest, as the registry reports it."""
        url = f"http://{self.registry}/v2/{repository}/manifests/{tag}"
        kind = "application/vnd.oci.image.manifest.v1+json"
        return self.ask("HEAD", url, headers={"Accept": kind})["Docker-Content-Digest"]


@dataclass(frozen=True)
class Model:
    """A model of the hub, with the files that have to arrive."""

    repo: str
    file: str
    files: tuple[Path, ...]

    @property
    def first(self) -> str:
        return self.files[0].name

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    @property
    def digests(self) -> list[str]:
        return [sha256(path) for path in self.files]


def write_model(path: Path, tensors: int, size: int, split: bool = False) -> list[Path]:
    """Write random tensors with llama.cpp's own GGUF writer, to one file or to one part for each tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(4403)
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=1 if split else 0)
    writer.add_block_count(1)
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    for number in range(tensors):
        writer.add_tensor(f"blk.0.{number}.weight", numpy.frombuffer(random.bytes(size), numpy.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}*.gguf"))


@pytest.fixture(scope="session")
def servers() -> Servers:
    variables = subprocess.run([ROOT / "tests/lab/lab", "inventory"], capture_output=True, text=True, check=True)
    found = Servers(json.loads(variables.stdout)["lab"]["vars"])
    found.requests()
    return found


@pytest.fixture(autouse=True)
def as_it_should_be(servers: Servers) -> Iterator[None]:
    """Reset the servers, so that a test does not see the faults and requests of another one."""
    servers.asked()
    servers.requests()
    yield
    servers.switch(url_seconds=3600.0, url_uses=None, limit=None, unavailable=0, retry_after=0)


@pytest.fixture(scope="session")
def whole(servers: Servers) -> Model:
    """The real model, in one file."""
    return Model(REPO, f"{NAME}.gguf", (servers.folder / "repos" / REPO / f"{NAME}.gguf",))


@pytest.fixture(scope="session")
def split(servers: Servers) -> Model:
    """The real model in three parts, made by llama-gguf-split."""
    parts = sorted((servers.folder / "repos" / REPO / "split").iterdir())
    return Model(REPO, f"split/{NAME}-00002-of-00003.gguf", tuple(parts))


@pytest.fixture(scope="session")
def big(servers: Servers) -> Model:
    """A file of 17 chunks."""
    files = write_model(servers.folder / "repos/lab/Big-GGUF/big.gguf", 2, 128 * MIB)
    servers.commit()
    return Model("lab/Big-GGUF", "big.gguf", tuple(files))


@pytest.fixture(scope="session")
def small(servers: Servers) -> Model:
    """Three parts of a MiB each."""
    files = write_model(servers.folder / "repos/lab/Small-GGUF/small.gguf", 3, MIB, split=True)
    servers.commit()
    return Model("lab/Small-GGUF", files[0].name, tuple(files))


def of_host(path: str) -> Path:
    """A file of the host's root, as this machine sees it."""
    return ROOT / ".lab/run" / LAB / "hosts/gpu1/root" / path.lstrip("/")


@pytest.fixture(scope="session")
def file_of_host() -> Callable[[str], Path]:
    return of_host


@pytest.fixture(scope="session")
def login(connect: Callable[[str], Host]) -> Host:
    return connect("operator")


@pytest.fixture
def home(login: Host) -> Iterator[str]:
    """A folder for the models and images of one test."""
    folder = f"/data/models/{secrets.token_hex(4)}"
    login.check_output(f"mkdir {folder}")
    yield folder
    login.check_output(f"rm -rf {folder}")


class Disks:
    """Disks of the host, each a file of the host on a loop device."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def make(self, name: str, size: str, *command: str | Path) -> str:
        """Make a file with a new file system, with a command of this machine."""
        image = of_host(f"/srv/{name}")
        image.unlink(missing_ok=True)
        subprocess.run(["truncate", "-s", size, image], check=True)
        subprocess.run([*command, image], check=True, capture_output=True)
        return f"/srv/{name}"

    @contextmanager
    def mounted(self, image: str, options: str = "loop") -> Iterator[str]:
        """Mount it, with a folder "models" of the operator; yields the mount point."""
        point = f"/mnt/{Path(image).name}"
        self._host.check_output(
            f"mkdir -p {point}; test -e /dev/loop-control || mknod /dev/loop-control c 10 237;"
            " n=$(losetup -f | tr -dc 0-9); test -e /dev/loop$n || mknod /dev/loop$n b 7 $n;"
            f" mount -o {options} {image} {point} && install -d -o operator -g operator {point}/models"
        )
        try:
            yield point
        finally:
            self._host.check_output(f"umount {point}")


@pytest.fixture(scope="session")
def program(servers: Servers) -> Callable[[str], list[str | Path]]:
    """The beginning of a command that runs one of the lab's own programs with its libraries."""

    def command(name: str) -> list[str | Path]:
        usr = servers.folder / "programs/usr"
        loader = next(usr.glob("lib/*-linux-gnu/ld-linux-*.so.*"))
        return [loader, "--library-path", loader.parent, usr / name]

    return command


@pytest.fixture(scope="session")
def disks(host: Host) -> Disks:
    return Disks(host)


def _claims(journals: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    for line in journals.splitlines():
        crc, dummy, body = line.partition(b" ")
        if body.startswith(b"have ") and crc == b"%08x" % zlib.crc32(body):
            chunk, size = map(int, body.split()[1:3])
            found[chunk] = max(size, found.get(chunk, 0))
    return found


@pytest.fixture(scope="session")
def claims_of() -> Callable[[bytes], dict[int, int]]:
    """Read journals. Their lines are "<crc32> have <chunk> <bytes from its start that are on the disk>"."""
    return _claims


def _sentence(answer: dict[str, Any]) -> str:
    assert answer.get("failed"), answer
    assert "module_stderr" not in answer and "Traceback" not in json.dumps(answer), answer
    assert answer["msg"].strip() and answer["msg"].count("\n") == 0, answer["msg"]
    return answer["msg"]


@pytest.fixture(scope="session")
def sentence() -> Callable[[dict[str, Any]], str]:
    """The message of a failure, which has to be one line and no traceback."""
    return _sentence


@pytest.fixture(scope="session")
def arrived(login: Host) -> Callable[[str, Model], None]:
    """Check that the folder has every file of the model with the right content, and besides only records."""

    def check(folder: str, model: Model) -> None:
        found = login.check_output(f"cd {folder} && sha256sum *.gguf").split()
        assert found[::2] == model.digests, found
        others = login.check_output(f"cd {folder} && find . -mindepth 1 ! -name '*.gguf' | sort").splitlines()
        assert [path for path in others if path != "./.gguf_model" and not path.endswith(".json")] == []

    return check
