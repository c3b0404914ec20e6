# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's certificate authority, and the certificate of its servers.

keys.py FOLDER ADDRESS      makes ca.pem, and server.pem for the address, each with its key; what is there stays
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


def main() -> None:
    folder, address = Path(sys.argv[1]), sys.argv[2]
    if (folder / "server.pem").exists():
        return
    authority = _key()
    name = _name("The lab's authority")
    own = _certificate(name, name, authority.public_key())
    own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    own = own.add_extension(_usage(authority=True), critical=True)
    _write(folder / "ca", authority, own.sign(authority, hashes.SHA256()))
    server = _key()
    leaf = _certificate(_name(address), name, server.public_key())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("controller")])
    leaf = leaf.add_extension(names, critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    leaf = leaf.add_extension(identifier, critical=False)
    _write(folder / "server", server, leaf.sign(authority, hashes.SHA256()))


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    day = datetime.timedelta(days=1)
    return builder.not_valid_before(now - day).not_valid_after(now + 365 * day)


def _usage(authority: bool) -> x509.KeyUsage:
    unused = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
    nothing = dict.fromkeys(unused.split(), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=authority, crl_sign=authority, **nothing)


def _write(path: Path, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> None:
    form = (serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    path.with_suffix(".key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    path.with_suffix(".key").chmod(0o600)
    path.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


if __name__ == "__main__":
    main()
