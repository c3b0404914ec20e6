# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token server of the lab's private registry: whoever has the password gets a token to pull, good for a minute.

tokens.py ADDRESS PORT KEY CERTIFICATE USER PASSWORD_FILE

A token is a JSON Web Token (RFC 7519) whose claims are those of the Docker registry's token authentication.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SERVICE = ISSUER = "lab"
SECONDS = 60


def token(key: rsa.RSAPrivateKey, certificate: x509.Certificate, user: str, scopes: list[str]) -> str:
    """A token for what the scopes ask, as far as it is pulling; a scope is "repository:<name>:<action>,<action>"."""
    now = int(time.time())
    parts = [scope.split(":") for scope in scopes]
    access = [{"type": kind, "name": name, "actions": ["pull"]} for kind, name, wanted in parts if "pull" in wanted]
    chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    head = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
    claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 10, "exp": now + SECONDS}
    claims = {**claims, "jti": secrets.token_hex(8), "access": access}
    body = ".".join(_word(json.dumps(one).encode()) for one in (head, claims))
    return f"{body}.{_word(key.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _word(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def main() -> None:
    address, port, key_file, certificate_file, user, password_file = sys.argv[1:]
    key = serialization.load_pem_private_key(Path(key_file).read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        sys.exit(f"{key_file} is no RSA key")
    signer = key
    certificate = x509.load_pem_x509_certificate(Path(certificate_file).read_bytes())
    known = base64.b64encode(f"{user}:{Path(password_file).read_text()}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != f"Basic {known}":
                self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]})
                return
            scopes = [word for scope in parse_qs(urlsplit(self.path).query).get("scope", []) for word in scope.split()]
            given = token(signer, certificate, user, scopes)
            self.answer(200, {"token": given, "access_token": given, "expires_in": SECONDS})

        def answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *dummy: object) -> None:
            pass

    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
