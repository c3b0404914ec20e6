# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reserved space for a set of files, and verified certificates."""

from __future__ import annotations

import datetime
import errno
import ipaddress
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import part_file
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import FetchError, Source, fetch, inspect
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.part_file import content_id
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.reserve import Need, remaining, reserve
from ansible_collections.gpufleet.llamacpp.tests.unit._fetch.fault_server import FaultServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MIB = 1 << 20


def content(number: int) -> str:
    return content_id(f"{number:064x}"[::-1], None)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB and few inodes."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = "size=4m,nr_inodes=10"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class TestReserve:
    def test_reserved_space_is_not_needed_again(self, small: Path) -> None:
        need = Need(str(small / "one"), 3 * MIB, content(1))
        assert remaining(need) == 3 * MIB
        reserve([need])
        assert remaining(need) == 0
        assert remaining(Need(need.destination, need.size)) == 3 * MIB

    def test_no_room_for_both(self, small: Path) -> None:
        one, two = Need(str(small / "one"), 3 * MIB, content(1)), Need(str(small / "two"), 2 * MIB, content(2))
        with pytest.raises(FetchError, match=rf"2 files of {5 * MIB} bytes together: No space .* bytes of {small}/two"):
            reserve([one, two])
        assert os.listdir(small) == []

    def test_errors_name_the_shown_path(self, small: Path) -> None:
        with pytest.raises(FetchError) as failure:
            reserve([Need(str(small / "one"), 9 * MIB, content(1), "/models/one")])
        assert "/models/one" in str(failure.value) and str(small) not in str(failure.value)

    def test_space_is_taken_for_all(self, small: Path) -> None:
        reserve([Need(str(small / name), MIB, content(number)) for number, name in enumerate("abc")])
        found = os.statvfs(small)
        assert found.f_bavail * found.f_frsize == MIB

    def test_a_quota(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        allocate = part_file.allocate

        def quota(handle: int, size: int) -> None:
            if size > MIB:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            allocate(handle, size)

        monkeypatch.setattr(part_file, "allocate", quota)
        (small / ".keep").touch()
        with pytest.raises(FetchError, match=os.strerror(errno.EDQUOT)):
            reserve([Need(str(small / "a"), MIB, content(1)), Need(str(small / "b"), 2 * MIB, content(2))])
        assert os.listdir(small) == [".keep"]

    def test_a_reserved_part_has_no_content(self, small: Path) -> None:
        data = os.urandom(MIB)
        with FaultServer(data) as server:
            sha256 = fetch([Source(server.url)], str(small / "x"), size=MIB, sha256=None).sha256
            reserve([Need(str(small / "y"), MIB, content_id(sha256, None))])
            fetched = fetch([Source(server.url)], str(small / "y"), size=MIB, sha256=sha256)
        assert fetched.bytes_resumed == 0
        assert sorted(os.listdir(small)) == ["x", "y"]


def test_allocate_without_fallocate_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """posix_fallocate of the C library would write every block."""

    class Library:
        class fallocate:  # noqa: N801
            argtypes: Any = None

            def __new__(cls, *dummy: Any) -> Any:
                import ctypes

                ctypes.set_errno(errno.EOPNOTSUPP)
                return -1

    monkeypatch.setattr(part_file.ctypes, "CDLL", lambda *dummy, **options: Library)
    with (tmp_path / "file").open("wb") as file:
        part_file.allocate(file.fileno(), 8 * MIB)
        found = os.fstat(file.fileno())
    assert (found.st_size, found.st_blocks) == (8 * MIB, 0)


class TestCertificates:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[FaultServer]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (tmp_path / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
        with FaultServer(os.urandom(MIB), tls=context) as running:
            yield running

    def test_ca_path_is_trusted(self, tmp_path: Path, server: FaultServer) -> None:
        path = tmp_path / "file"
        fetch([Source(server.url)], str(path), size=None, sha256=None, ca_path=str(tmp_path / "ca.pem"), chunk=65536)
        assert path.read_bytes() == server.content

    def test_an_unknown_authority_is_not_trusted(self, server: FaultServer) -> None:
        with pytest.raises(
            FetchError, match="CERTIFICATE_VERIFY_FAILED.*set ca_path .* to its certificate authority"
        ) as failure:
            inspect(Source(server.url))
        assert "tries" not in str(failure.value)
