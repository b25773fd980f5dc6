"""Debian's docker-registry on a free loopback port, with whatever authentication a test wants.

Also a certificate, and a token server for the bearer flow. Everything is ended by leaving the ``with``.
"""

import base64
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from demo.daemons import free_port
from tests.support.http_server import QuietServer, in_thread

__all__ = [
    "PASSWORD",
    "USERNAME",
    "Authority",
    "RegistryServer",
    "TokenServer",
    "run_registry",
    "run_token_server",
]

USERNAME = "ada"
PASSWORD = "correct horse"
_HTPASSWD = f"{USERNAME}:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"


@dataclass(frozen=True)
class Authority:
    """A self-signed certificate for this machine, and its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    certificate_file: Path
    key_file: Path

    @classmethod
    def create(cls, directory: Path) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        certificate_file, key_file = directory / "registry.crt", directory / "registry.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cls(key, certificate, certificate_file, key_file)


@dataclass
class TokenServer:
    """Grants tokens to ``USERNAME`` with ``PASSWORD``, or with an identity token that was given out."""

    url: str
    authority: Authority
    seconds: int = 300
    """How long tokens are good; the registry takes them 60 seconds longer, for clocks that differ."""
    identity_token: str = "identity-1"
    anonymous_pull: bool = True
    asked: list[str] = field(default_factory=list)
    """What each request was: ``METHOD QUERY-OR-FORM``."""

    def token(self, scopes: list[str], *, known: bool) -> str:
        """A signed token for what of ``scopes`` is granted."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = [a for a in actions.split(",") if known or (a == "pull" and self.anonymous_pull)]
            access.append({"type": kind, "name": name, "actions": granted})
        der = self.authority.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": USERNAME if known else "",
            "aud": "registry",
            "exp": now + self.seconds,
            "nbf": now - 10,
            "iat": now,
            "jti": str(len(self.asked)),
            "access": access,
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self.authority.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def run_token_server(authority: Authority) -> Iterator[TokenServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate_file, authority.key_file)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            tokens.asked.append(f"GET {urllib.parse.unquote(self.path)}")
            header = self.headers.get("Authorization", "")
            right = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
            if header and header != right:
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})
                return
            self._answer(200, {"token": tokens.token(query.get("scope", []), known=bool(header))})

        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            tokens.asked.append(f"POST {form}")
            if form["refresh_token"] != [tokens.identity_token] or form["grant_type"] != ["refresh_token"]:
                self._answer(401, {"error": "invalid_grant"})
                return
            scopes = form.get("scope", [""])[0].split()
            self._answer(200, {"access_token": tokens.token(scopes, known=True)})

        def _answer(self, status: int, members: dict[str, object]) -> None:
            body = json.dumps({**members, "expires_in": 300}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    tokens = TokenServer(f"https://localhost:{server.server_port}/token", authority)
    with in_thread(server):
        yield tokens


@dataclass(frozen=True)
class RegistryServer:
    """A running registry: ``host`` is how references name it."""

    host: str
    directory: Path
    process: subprocess.Popen[bytes]

    def blob_file(self, digest: str) -> Path:
        """Where the registry keeps a blob, to be tampered with."""
        algorithm, _, text = digest.partition(":")
        return self.directory / "data/docker/registry/v2/blobs" / algorithm / text[:2] / text / "data"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def sent(self) -> int:
        """How many bytes of manifests and blobs it has sent."""
        return sum(map(int, re.findall(r'"GET [^"]*" \d+ (\d+) ', self.log)))


@contextmanager
def run_registry(
    directory: Path,
    *,
    basic: bool = False,
    tls: Authority | None = None,
    tokens: TokenServer | None = None,
) -> Iterator[RegistryServer]:
    """Run a registry in ``directory`` until the end of the ``with``."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is not installed: run scripts/install-packages")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
    }
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "tests"}
    if tls:
        http["tls"] = {"certificate": str(tls.certificate_file), "key": str(tls.key_file)}
    config["http"] = http
    if basic:
        (directory / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}}
    if tokens:
        config["auth"] = {
            "token": {
                "realm": tokens.url,
                "service": "registry",
                "issuer": "tests",
                "rootcertbundle": str(tokens.authority.certificate_file),
            }
        }
    (directory / "config.yml").write_text(json.dumps(config))
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(directory / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield RegistryServer(f"127.0.0.1:{port}" if tls is None else f"localhost:{port}", directory, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail("docker-registry ended at once")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail("docker-registry does not answer")
